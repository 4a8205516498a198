//go:build !race

package cluster

// raceDetector reports whether the race detector looks on.
const raceDetector = false
