//go:build !race

package reconciler

// raceDetector reports whether the race detector looks on.
const raceDetector = false
