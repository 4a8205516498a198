// Package report writes what benchmarks have found as one HTML page: the table with its goals,
// plots and flame graphs. The page needs nothing from elsewhere, and is light or dark as its
// reader has it.
package report
