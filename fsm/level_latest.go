package fsm

// Level numbers what this version can read in the log and in snapshots. It grows with
// each version that adds a command, or a field to a command or a record.
//
// The constant is alone in this file, so that a test can put a later version's file in
// its place when it builds the program.
const Level = secondLevel
