// Package simsafekeeper simulates the safekeepers of a test: their HTTP API for
// controllers, membership configurations with generations, tombstones that a restart
// forgets, and how far the log of each timeline reaches on each of them. There are
// no bytes of log.
//
// A Fleet also checks what controllers ask for against what was committed before:
//
//	I27 a configuration is committed before any safekeeper hears of it
//	I28 one generation of a timeline is one configuration
//	I29 a timeline is excluded only from safekeepers outside the committed
//	    configuration, and deleted only after its deletion was committed
//	    and the log that a quorum had is on a quorum of the set that a migration
//	    has committed
package simsafekeeper
