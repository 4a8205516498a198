// Package storconcli is storcon_cli, the command line by which operators look at a
// storage controller and give it orders.
//
// Subcommands, flags, tables and exit codes are those of Neon's storcon_cli, because
// scripts and test suites rely on them. It prints tables for people. With `--output json`
// or `--output yaml`, it prints one document for programs.
//
// The package speaks to controllers by HTTP alone, also to Neon's own. It may not depend
// on how Quorate works.
package storconcli
