package client

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Failure is a try that failed.
type Failure struct {
	Tries int // made so far, this one included
	Err   error
}

// Retry decides whether a call is tried again, and how long to wait before. The
// wait ends with the context of the call.
type Retry func(Failure) (pause time.Duration, again bool)

// The pauses of RetryUnavailable, where the controller asks for none.
const (
	shortestPause = 10 * time.Millisecond
	longestPause  = time.Second
)

// RetryUnavailable tries again as long as no replica answers, or the answer is 503,
// until the context of the call ends: another replica may answer, or a successor of
// the leader. It waits as long as the answer's Retry-After asks, and else from 10 ms
// up to 1 s, twice as long each time.
//
// An answer that broke off, or that cannot be decoded, counts as none.
func RetryUnavailable(f Failure) (pause time.Duration, again bool) {
	if status := StatusOf(f.Err); status != 0 && status != http.StatusServiceUnavailable {
		return 0, false
	}
	pause = longestPause
	if doublings := f.Tries - 1; doublings < 7 {
		pause = min(shortestPause<<max(doublings, 0), longestPause)
	}
	var s *StatusError
	if errors.As(f.Err, &s) && s.RetryAfter > 0 {
		pause = s.RetryAfter
	}
	return pause, true
}

// retryAfter reads the header's form in seconds, which controllers send.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
