package computehook

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
)

// answers is a control plane that answers with one status after another, the last one
// again and again. Status 0 is no answer.
type answers struct {
	statuses []int
	calls    int
	paths    map[string]int
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.paths == nil {
		a.paths = make(map[string]int)
	}
	a.paths[r.URL.Path]++
	status := a.statuses[min(a.calls, len(a.statuses)-1)]
	if a.calls++; status == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{
		StatusCode: status, Body: http.NoBody, Header: http.Header{}, Request: r,
	}, nil
}

func TestSafekeepersAreToldUntilTheControlPlaneHasHeardOrRefuses(t *testing.T) {
	type script struct {
		statuses []int
		calls    int
		took     time.Duration // negative: it does not matter
		fails    bool
	}
	for name, c := range map[string]script{
		"heard at once":   {statuses: []int{200}, calls: 1},
		"the first retry": {statuses: []int{0, 200}, calls: 2},
		"later retries wait": {
			statuses: []int{503, 502, 200}, calls: 3, took: 1100 * time.Millisecond,
		},
		"told to slow down":     {statuses: []int{429, 200}, calls: 2, took: SlowDownDelay},
		"refused":               {statuses: []int{403}, calls: 1, fails: true},
		"to be applied later":   {statuses: []int{423}, calls: 1, fails: true},
		"an answer of no kind":  {statuses: []int{500}, calls: 1, fails: true},
		"refused after a while": {statuses: []int{0, 400}, calls: 2, fails: true},
		"nobody has ever heard": {
			statuses: []int{0}, calls: 1 + notifyRetries, fails: true, took: -1,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			plane := &answers{statuses: c.statuses}
			client := New(Options{BaseURL: "http://plane", Transport: plane})
			begun := time.Now()
			err := client.NotifySafekeepersUntilHeard(t.Context(), neon.NotifySafekeepers{})
			if (err != nil) != c.fails || plane.calls != c.calls {
				t.Errorf("%s: %v after %d calls, want %d", name, err, plane.calls, c.calls)
			}
			if took := time.Since(begun).Round(time.Millisecond); c.took >= 0 && took != c.took {
				t.Errorf("%s: it took %s, want %s", name, took, c.took)
			}
			if plane.paths["/notify-safekeepers"] != c.calls {
				t.Errorf("%s: called %v", name, plane.paths)
			}
		})
	}
}

func TestRetriesEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plane := &answers{statuses: []int{429}}
		client := New(Options{BaseURL: "http://plane", Transport: plane})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		err := client.NotifySafekeepersUntilHeard(ctx, neon.NotifySafekeepers{})
		if err == nil || plane.calls != 1 || time.Since(begun) != time.Second {
			t.Errorf("%v after %d calls and %s", err, plane.calls, time.Since(begun))
		}
	})
}

func TestPausesBetweenRetriesGrowToThreeSeconds(t *testing.T) {
	last := retryPause(Retryable, 0)
	if last != 0 {
		t.Errorf("the first retry waits %s", last)
	}
	for n := 1; n < 20; n++ {
		pause := retryPause(Retryable, n)
		if pause < last || pause < time.Second || pause > 3*time.Second {
			t.Errorf("after try %d: %s, and %s before", n, pause, last)
		}
		last = pause
	}
	if last != 3*time.Second {
		t.Errorf("the longest pause is %s", last)
	}
}

func TestBusyControlPlaneIsNamedAsTheExistingControllerDoes(t *testing.T) {
	plane := &answers{statuses: []int{423, 200}}
	client := New(Options{BaseURL: "http://plane", Transport: plane})
	o := client.NotifyAttach(t.Context(), notification(t))
	if o.Kind != Busy || o.Err.Error() != "Control plane tenant busy" {
		t.Errorf("outcome %v: %v", o.Kind, o.Err)
	}
	if o = client.ImportComplete(t.Context(), neon.ImportComplete{}); o.Err != nil ||
		plane.paths["/import_complete"] != 1 {
		t.Errorf("outcome %v: %v, called %v", o.Kind, o.Err, plane.paths)
	}
}

func TestKindsHaveNames(t *testing.T) {
	for k := Applied; k <= Unexpected; k++ {
		if strings.HasPrefix(k.String(), "Kind(") {
			t.Errorf("kind %d has no name", uint8(k))
		}
	}
	if got := (Unexpected + 1).String(); got != "Kind(6)" {
		t.Errorf("an unknown kind is %q", got)
	}
}
