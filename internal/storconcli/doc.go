// Package storconcli is the command line with which an operator looks at a
// storage controller and tells it what to do: storcon_cli.
//
// Subcommands, flags, tables and exit codes are those that scripts and test
// suites written for Neon's storcon_cli rely on. What is printed is a table for
// people, which goes on `--output json` and `--output yaml` into one document
// for programs.
package storconcli
