package membership

import (
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
	"quorate/internal/safekeeping"
)

var one = neon.TimelineRef{Tenant: neon.TenantID{1}, Timeline: neon.TimelineID{2}}

// fakeSafekeepers answer as told, and success when not told. They are compute too.
type fakeSafekeepers struct {
	mu   sync.Mutex
	log  []string
	down map[string]bool // by the first words of what is asked
	at   map[neon.NodeID]neon.Lsn
	load map[neon.NodeID]safekeeping.Load
	deaf map[neon.TimelineID]bool // compute is never told of their safekeepers
	// ahead is what a safekeeper says that it has instead of what it is given, if set
	ahead neon.SafekeeperGeneration
}

func (f *fakeSafekeepers) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	for prefix, down := range f.down {
		if down && strings.HasPrefix(text, prefix) {
			return errors.New("down")
		}
	}
	f.log = append(f.log, text)
	return nil
}

func (f *fakeSafekeepers) fail(prefix string, down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = map[string]bool{prefix: down}
}

// first is the position of the first call with that text, -1 if there is none.
func (f *fakeSafekeepers) first(text string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.IndexFunc(f.log, func(s string) bool { return strings.HasPrefix(s, text) })
}

func (f *fakeSafekeepers) BaseURL(sk *fsm.Safekeeper) string { return "http://" + sk.Host }

func (f *fakeSafekeepers) CreateTimeline(
	_ context.Context, sk *fsm.Safekeeper, _ neon.SafekeeperTimelineCreate,
) error {
	return f.note("create %d", sk.ID)
}

func (f *fakeSafekeepers) PullTimeline(
	_ context.Context, sk *fsm.Safekeeper, _ neon.PullTimelineRequest,
) (r neon.PullTimelineResponse, err error) {
	return r, f.note("pull %d", sk.ID)
}

func (f *fakeSafekeepers) SwitchMembership(
	_ context.Context, sk *fsm.Safekeeper, _ neon.TimelineRef, conf neon.Membership,
) (neon.MembershipSwitched, error) {
	f.mu.Lock()
	at := f.at[sk.ID]
	conf.Generation = max(conf.Generation, f.ahead)
	f.mu.Unlock()
	return neon.MembershipSwitched{Current: conf, LastLogTerm: 1, FlushLsn: at},
		f.note("switch %d to %d", sk.ID, conf.Generation)
}

func (f *fakeSafekeepers) ExcludeTimeline(
	_ context.Context, sk *fsm.Safekeeper, _ neon.TimelineRef, _ neon.Membership,
) error {
	return f.note("exclude %d", sk.ID)
}

func (f *fakeSafekeepers) NotifySafekeepers(ctx context.Context, n neon.NotifySafekeepers) error {
	f.mu.Lock()
	deaf := f.deaf[n.Timeline]
	f.mu.Unlock()
	if deaf {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return f.note("tell compute of %d in %d", len(n.Safekeepers), n.Generation)
}

func (f *fakeSafekeepers) Loads() map[neon.NodeID]safekeeping.Load { return f.load }

type world struct {
	*fsmtest.Faulty
	keepers  fakeSafekeepers
	creator  *Creator
	migrator *Migrator
}

// newWorld has a tenant and four safekeepers, of which a timeline needs three.
func newWorld(t *testing.T) *world {
	w := &world{Faulty: fsmtest.NewFaulty(t)}
	w.AddNodes(t, 1, neon.MakeAZ("a"))
	w.Must(fsm.CreateTenant{
		ID: one.Tenant, Count: 1, Stripe: 8, Policy: neon.Attached(0),
		Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}},
	})
	for i := 1; i <= 4; i++ {
		id := neon.NodeID(i)
		w.Must(fsm.UpsertSafekeeper{
			ID: id, Host: fmt.Sprintf("sk%d", i), Port: 1, HTTPPort: 2,
			AZ: neon.MakeAZ(fmt.Sprintf("az-%d", i)),
		})
		w.Must(fsm.SetSafekeeperScheduling{Safekeeper: id, To: neon.SafekeeperActive})
	}
	w.keepers.load = map[neon.NodeID]safekeeping.Load{
		1: {Available: true}, 2: {Available: true, Timelines: 1},
		3: {Available: true, Timelines: 2}, 4: {Available: true, Timelines: 9},
	}
	d := Deps{
		Log: w, Safekeepers: &w.keepers, Loads: &w.keepers, Hook: &w.keepers, PerTimeline: 3,
		Logger: slog.New(slog.DiscardHandler),
	}
	w.creator, w.migrator = NewCreator(d), NewMigrator(d)
	return w
}

func (w *world) create(ctx context.Context, writable bool) (*neon.SafekeeperSet, error) {
	return w.creator.Create(ctx, Timeline{
		Tenant: one.Tenant, Info: neon.TimelineInfo{Timeline: one.Timeline, LastRecordLsn: 8},
		Writable: writable,
	})
}

func (w *world) timeline(t *testing.T) fsm.Timeline {
	t.Helper()
	tl, ok := w.State().Timeline(one.Tenant, one.Timeline)
	if !ok {
		t.Fatal("there is no timeline")
	}
	return tl
}

func TestANewTimelineGoesToTheLeastLoadedSafekeepers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 2 { // a repeated creation finds the set
			set, err := w.create(t.Context(), true)
			if err != nil || len(set.Safekeepers) != 3 {
				t.Fatalf("%+v, %v", set, err)
			}
		}
		if tl := w.timeline(t); !slices.Equal(tl.Set, []neon.NodeID{1, 2, 3}) {
			t.Errorf("it is on %v", tl.Set)
		}
	})
}

func TestATimelineThatIsOnlyReadHasNoSafekeepers(t *testing.T) {
	w := newWorld(t)
	set, err := w.create(t.Context(), false)
	if err != nil || len(set.Safekeepers) != 0 || len(w.keepers.log) > 0 {
		t.Errorf("%+v, %v, %v", set, err, w.keepers.log)
	}
}

func TestTooFewZonesRefuseATimeline(t *testing.T) {
	w := newWorld(t)
	w.Must(fsm.SetSafekeeperScheduling{Safekeeper: 1, To: neon.SafekeeperPause})
	w.Must(fsm.SetSafekeeperScheduling{Safekeeper: 2, To: neon.SafekeeperPause})
	if _, err := w.create(t.Context(), true); neon.CodeOf(err) != neon.Internal {
		t.Errorf("got %v", err)
	}
}

func TestAMemberThatMissedTheCreationOwesAPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.keepers.fail("create 2", true)
		if _, err := w.create(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		op, owed := w.State().SafekeeperOp(2, one.Tenant, one.Timeline)
		if !owed || op.Kind != fsm.OpPull {
			t.Errorf("%+v, %v", op, owed)
		}
	})
}

func TestWithoutAQuorumATimelineIsNotCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.keepers.fail("create", true)
		if _, err := w.create(t.Context(), true); err == nil {
			t.Error("it is created on none")
		}
		w.keepers.fail("create", false)
		if _, err := w.create(t.Context(), true); err != nil {
			t.Errorf("the repeated creation: %v", err)
		}
	})
}

var moved = []neon.NodeID{1, 2, 4}

func TestAMigrationTakesItsStepsInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.create(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := w.migrator.Migrate(t.Context(), one, moved); err != nil {
			t.Fatal(err)
		}
		tl := w.timeline(t)
		if !slices.Equal(tl.Set, moved) || tl.Joint() || !tl.MigrationDone() {
			t.Errorf("%+v", tl)
		}
		at := -1
		for _, step := range []string{
			"tell compute of 4 in 2", "switch 3 to 2", "pull 4", "switch 4 to 2", "exclude 3",
			"tell compute of 3 in 3",
		} {
			next := w.keepers.first(step)
			if next <= at {
				t.Errorf("%s is not in its place in %q", step, w.keepers.log)
			}
			at = next
		}
		if err := w.migrator.Migrate(t.Context(), one, moved); err != nil {
			t.Errorf("asking again: %v", err)
		}
	})
}

// What an old quorum has acknowledged is on a new quorum before the commit.
func TestAMigrationIsNotCommittedBehindTheSyncPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.create(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		w.keepers.at = map[neon.NodeID]neon.Lsn{1: 0x20, 2: 0x20, 3: 0x20}
		set := []neon.NodeID{3, 4}
		w.migrator.PerTimeline = 2
		if err := w.migrator.Migrate(t.Context(), one, set); err == nil {
			t.Error("it is committed without the log")
		}
		if tl := w.timeline(t); !tl.Joint() {
			t.Errorf("%+v", tl)
		}
		w.keepers.at[4] = 0x20
		if err := w.migrator.Migrate(t.Context(), one, set); err != nil {
			t.Error(err)
		}
	})
}

func TestAMigrationIsTakenBackUntilItIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.create(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		w.keepers.fail("pull", true)
		if err := w.migrator.Migrate(t.Context(), one, moved); err == nil {
			t.Fatal("a newcomer without the log is a member")
		}
		err := w.migrator.Migrate(t.Context(), one, []neon.NodeID{2, 3, 4})
		if neon.CodeOf(err) != neon.Conflict {
			t.Errorf("to another set meanwhile: %v", err)
		}
		for range 2 {
			if err := w.migrator.Abort(t.Context(), one); err != nil {
				t.Fatal(err)
			}
		}
		if tl := w.timeline(t); !slices.Equal(tl.Set, []neon.NodeID{1, 2, 3}) || tl.Joint() {
			t.Errorf("%+v", tl)
		}
		if err := w.migrator.Abort(t.Context(),
			neon.TimelineRef{}); neon.CodeOf(err) != neon.NotFound {
			t.Errorf("got %v", err)
		}
	})
}

func TestASetThatCannotBeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.create(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		w.Must(fsm.SetSafekeeperScheduling{Safekeeper: 4, To: neon.SafekeeperDecomissioned})
		for _, set := range [][]neon.NodeID{{}, {1, 2}, {1, 2, 2}, {1, 2, 9}, {1, 2, 4}} {
			if err := w.migrator.Migrate(t.Context(), one,
				set); neon.CodeOf(err) != neon.BadRequest {
				t.Errorf("%v: %v", set, err)
			}
		}
		if tl := w.timeline(t); tl.Joint() {
			t.Error("a move was begun")
		}
	})
}

// A leader carries on at once what it finds, and what a request has left after a while.
func TestTheLeaderCarriesOnAMigrationThatNobodyCarriesOn(t *testing.T) {
	for _, c := range []struct {
		name  string
		found bool // at the beginning of the term
		limit time.Duration
	}{{"found", true, 3 * longestPause}, {"left", false, jointTimeout + 3*scanInterval}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if _, err := w.create(t.Context(), true); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				begin := func() { go func() { w.migrator.Run(ctx); close(ended) }() }
				if !c.found {
					begin()
					synctest.Wait()
				}
				w.keepers.fail("pull", true)
				if err := w.migrator.Migrate(t.Context(), one, moved); err == nil {
					t.Fatal("a newcomer without the log is a member")
				}
				if c.found {
					begin()
					time.Sleep(time.Minute)
				}
				synctest.Wait()
				w.keepers.fail("pull", false)
				time.Sleep(c.limit)
				synctest.Wait()
				if tl := w.timeline(t); !tl.MigrationDone() || !slices.Equal(tl.Set, moved) {
					t.Errorf("%+v", tl)
				}
				cancel()
				<-ended
			})
		})
	}
}
