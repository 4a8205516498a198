package fanout

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

type answered int

func (a answered) Error() string   { return http.StatusText(int(a)) }
func (a answered) HTTPStatus() int { return int(a) }

// busyUntil answers with a status for some time, and then well.
func busyUntil(status int, d time.Duration) func() error {
	end := time.Now().Add(d)
	return func() error {
		if time.Now().Before(end) {
			return answered(status)
		}
		return nil
	}
}

func TestWhatIsUnderWayIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		underWay, status int
		busy             time.Duration
		ok               bool
	}{
		"under way":            {429, 429, time.Minute, true},
		"under way for ever":   {429, 429, time.Hour, false},
		"busy":                 {429, 503, 4 * time.Second, true},
		"busy for long":        {429, 503, time.Minute, false},
		"refused":              {429, 409, time.Second, false},
		"refused, and no such": {0, 409, time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			begun := time.Now()
			err := Settle(ctx, c.underWay, busyUntil(c.status, c.busy))
			took := time.Since(begun)
			switch {
			case c.ok && (err != nil || took > c.busy+longestLook):
				t.Errorf("%s: %v after %s", name, err, took)
			case !c.ok && StatusOf(err) != c.status:
				t.Errorf("%s: the last answer is %v", name, err)
			case took >= 5*time.Minute:
				t.Errorf("%s: it ended with its context only", name)
			}
		})
	}
}

func TestAWaitEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)
		begun := time.Now()
		err := Settle(ctx, 429, func() error { return answered(429) })
		if took := time.Since(begun); StatusOf(err) != 429 || took != 10*time.Second {
			t.Errorf("%v after %s", err, took)
		}
	})
}

// slowCaller is a Caller that is busy at first.
type slowCaller struct{ call func() error }

func (s slowCaller) Call(
	context.Context, *fsm.Node, neon.ShardID, neon.ShardCall,
) (int, []byte, error) {
	if err := s.call(); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, []byte("null"), nil
}

func TestAskWaitsForWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := neon.ArchivalConfig(neon.TimelineID{1}, neon.ArchivalRequest{State: neon.Archived})
		to := slowCaller{busyUntil(http.StatusConflict, 10*time.Second)}
		replies := Ask(t.Context(), to, make([]Owner, 2), call)
		for _, r := range replies {
			if r.Err != nil || r.Status != http.StatusOK {
				t.Errorf("%+v", r)
			}
		}
	})
}
