package safekeeping

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

// world is a log, and safekeepers that carry out every call unless they are down.
type world struct {
	*fsmtest.Log
	t     testing.TB
	mu    sync.Mutex
	down  map[neon.NodeID]bool
	bad   map[neon.TimelineID]bool // timelines about which every call fails
	calls []string
}

func (w *world) must(c fsm.Command) {
	w.t.Helper()
	w.Must(w.t, c)
}

func (w *world) call(k *fsm.Safekeeper, id neon.TimelineID, format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down[k.ID] || w.bad[id] {
		return errors.New("down")
	}
	w.calls = append(w.calls, fmt.Sprintf("%d ", k.ID)+fmt.Sprintf(format, args...))
	return nil
}

func (w *world) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := slices.Sorted(slices.Values(w.calls))
	w.calls = nil
	return calls
}

func (w *world) Utilization(
	_ context.Context, k *fsm.Safekeeper,
) (neon.SafekeeperUtilization, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down[k.ID] {
		return neon.SafekeeperUtilization{}, errors.New("down")
	}
	return neon.SafekeeperUtilization{Timelines: uint64(k.ID)}, nil
}

func (w *world) BaseURL(k *fsm.Safekeeper) string { return "http://" + k.Host }

func (w *world) PullTimeline(
	_ context.Context, k *fsm.Safekeeper, r neon.PullTimelineRequest,
) (neon.PullTimelineResponse, error) {
	return neon.PullTimelineResponse{}, w.call(k, r.Timeline, "pull %d from %v", r.Timeline[0],
		r.HTTPHosts)
}

func (w *world) ExcludeTimeline(
	_ context.Context, k *fsm.Safekeeper, id neon.TimelineRef, c neon.Membership,
) error {
	return w.call(k, id.Timeline, "exclude %d generation %d", id.Timeline[0], c.Generation)
}

func (w *world) DeleteTimeline(_ context.Context, k *fsm.Safekeeper, id neon.TimelineRef) error {
	return w.call(k, id.Timeline, "delete %d", id.Timeline[0])
}

func (w *world) DeleteTenant(_ context.Context, k *fsm.Safekeeper, id neon.TenantID) error {
	return w.call(k, neon.TimelineID{}, "delete tenant %d", id[0])
}

var tenant = neon.TenantID{1}

func newWorld(t testing.TB, safekeepers int) *world {
	w := &world{
		t: t, Log: fsmtest.NewLog(), down: map[neon.NodeID]bool{}, bad: map[neon.TimelineID]bool{},
	}
	w.must(fsm.RegisterNode{ID: 1, Addr: fsm.NodeAddr{HTTPHost: "ps"}})
	w.must(fsm.CreateTenant{
		ID: tenant, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{{Attached: 1}},
	})
	for i := 1; i <= safekeepers; i++ {
		w.must(fsm.UpsertSafekeeper{ID: neon.NodeID(i), Host: fmt.Sprint("sk", i)})
	}
	return w
}

func (w *world) timeline(n byte, set ...neon.NodeID) neon.TimelineID {
	id := neon.TimelineID{n}
	w.must(fsm.CreateTimeline{Tenant: tenant, Timeline: id, Set: set})
	return id
}

// during runs a term around f, in virtual time.
func during(t *testing.T, w *world, o Options, f func(k *Keeper, log *bytes.Buffer)) {
	var text bytes.Buffer
	k := New(Deps{Log: w, Calls: w, Options: o, Logger: slog.New(slog.NewTextHandler(&text, nil))})
	w.Subscribe(k.Changed)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = k.Run(ctx, 1)
	}()
	synctest.Wait()
	f(k, &text)
	cancel()
	<-done
}

// TestWhoAnswersBecomesActive: a safekeeper that answers is used, one that does not is
// waited for, and one that is decommissioned is not even asked.
func TestWhoAnswersBecomesActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.must(fsm.SetSafekeeperScheduling{Safekeeper: 3, To: neon.SafekeeperDecomissioned})
		w.down[2] = true
		during(t, w, Options{}, func(k *Keeper, log *bytes.Buffer) {
			time.Sleep(time.Second)
			if sk, _ := w.State().Safekeeper(1); sk.Scheduling != neon.SafekeeperActivating {
				t.Errorf("safekeeper 1 is %s before its client can see it Activating",
					sk.Scheduling)
			}
			time.Sleep(10 * time.Second)
			want := map[neon.NodeID]neon.SafekeeperScheduling{
				1: neon.SafekeeperActive, 2: neon.SafekeeperActivating,
				3: neon.SafekeeperDecomissioned,
			}
			for id, policy := range want {
				if sk, _ := w.State().Safekeeper(id); sk.Scheduling != policy {
					t.Errorf("safekeeper %d is %s", id, sk.Scheduling)
				}
			}
			if !strings.Contains(log.String(),
				`msg="Heartbeat round complete for 2 safekeepers, 1 offline"`) {
				t.Errorf("logged %s", log)
			}
			if l := k.Loads(); !l[1].Available || l[1].Timelines != 1 || l[2].Available {
				t.Errorf("loads %+v", l)
			}
			w.mu.Lock()
			w.down[1], w.down[2] = true, false
			w.mu.Unlock()
			time.Sleep(time.Minute)
			if l := k.Loads(); l[1].Available || !l[2].Available {
				t.Errorf("loads a minute later %+v", l)
			}
		})
	})
}

// TestOpsAreCarriedOut: each kind by its own call, an exclusion never by a deletion,
// and all again by the next leader if a safekeeper was down.
func TestOpsAreCarriedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		pull, move, gone := w.timeline(1, 1, 2), w.timeline(2, 1, 2), w.timeline(3, 2)
		w.must(fsm.PullTimeline{
			Tenant: tenant, Timeline: pull, Generation: 1, Safekeepers: []neon.NodeID{2},
		})
		w.must(fsm.BeginMembership{
			Tenant: tenant, Timeline: move, Generation: 1, NewSet: []neon.NodeID{1, 3},
		})
		w.must(fsm.EndMembership{
			Tenant: tenant, Timeline: move, Generation: 2, Verdict: fsm.MembershipCommit,
		})
		w.must(fsm.AckMembership{Tenant: tenant, Timeline: move, Set: 3})
		w.must(fsm.DeleteTimeline{Tenant: tenant, Timeline: gone})
		w.down[2] = true
		during(t, w, Options{}, func(*Keeper, *bytes.Buffer) {
			time.Sleep(time.Minute)
			if calls := w.took(); len(calls) > 0 {
				t.Errorf("called %q", calls)
			}
		})
		w.down[2] = false
		during(t, w, Options{}, func(*Keeper, *bytes.Buffer) {
			time.Sleep(time.Minute)
			want := []string{"2 delete 3", "2 exclude 2 generation 3", "2 pull 1 from [http://sk1]"}
			if calls := w.took(); !slices.Equal(calls, want) {
				t.Errorf("called %q", calls)
			}
		})
		if n := w.State().SafekeeperOpCount(); n != 0 {
			t.Errorf("%d operations are left", n)
		}
	})
}

// TestFailingOpsDoNotStarveOthers: with room for one at a time.
func TestFailingOpsDoNotStarveOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		for n := byte(1); n <= 9; n++ {
			id := w.timeline(n, 1)
			w.must(fsm.DeleteTimeline{Tenant: tenant, Timeline: id})
			w.bad[id] = n < 9
		}
		during(t, w, Options{PerSafekeeper: 1}, func(*Keeper, *bytes.Buffer) {
			time.Sleep(10 * time.Minute)
			if calls := w.took(); !slices.Equal(calls, []string{"1 delete 9"}) {
				t.Errorf("called %q", calls)
			}
		})
	})
}

// TestASafekeeperThatStartsIsNoticedAtOnce: not only in the next round.
func TestASafekeeperThatStartsIsNoticedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.down[1] = true
		during(t, w, Options{HeartbeatInterval: 5 * time.Second},
			func(_ *Keeper, log *bytes.Buffer) {
				time.Sleep(12 * time.Second)
				w.mu.Lock()
				w.down[1] = false
				w.mu.Unlock()
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
				if !strings.Contains(log.String(),
					"Heartbeat round complete for 1 safekeepers, 0 offline") {
					t.Errorf("logged %s", log)
				}
			})
	})
}
