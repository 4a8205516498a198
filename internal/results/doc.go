// Package results is the one model of what a benchmark has found, whoever measured it: a name
// that is the same on every platform, a unit, which way is better, goals, all samples with
// their summary, and beside them what says how far they can be trusted: the commit, the machine,
// the settings, the command, and the noise of the machine meanwhile.
//
// A Run is written as JSON in the shape of the results of Neon's performance tests, with more
// fields; as a table for people; or as text that benchstat reads.
package results
