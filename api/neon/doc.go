// Package neon holds Neon's own words: identifiers, shard identity, generations,
// LSNs, durations, location and tenant configuration, and the JSON in which
// pageservers, safekeepers, neon_local and the test suites spell them.
//
// It is a leaf: it knows nothing of how the controller works. Every parser here
// is strict about what it accepts and exact about what it prints, because both
// ends of every wire are programs that were written against another controller.
package neon
