// Package resultsdb keeps what benchmarks have found in a database, SQLite or Postgres, so that
// it can be followed over commits, by platform. A run that is taken in twice is there once.
package resultsdb
