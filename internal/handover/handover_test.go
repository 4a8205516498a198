package handover_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/handover"
	"quorate/internal/neondb"
	"quorate/internal/neonstate"
	"quorate/testcluster/neonrows"
)

var databases = flag.Uint64("moving.databases", 50, "random databases to take over")

var errCrash = errors.New("crashed here")

// accepted is all that random databases have.
var accepted = []neonstate.Code{
	neonstate.NoGeneration, neonstate.UnknownSafekeeper, neonstate.BadTimeline, neonstate.BadImport,
	neonstate.IncompleteTenant, neonstate.MixedSettings, neonstate.OwnerWithout,
}

// move is a cut-over of a database in memory, with the snapshot that it writes.
type move struct {
	handover.CutOver
	db    *neonrows.Memory
	saved []byte
	asked int
}

func newMove(c *neondb.Content) *move {
	m := &move{db: &neonrows.Memory{Content: c}}
	m.CutOver = handover.CutOver{
		Source: handover.Source{Database: m.db, Accept: accepted}, Owner: m.db, ID: "neon-1",
		Own: neondb.Leader{Address: "http://us/", StartedAt: time.Unix(1_800_000_000, 0).UTC()},
		StepDown: func(context.Context, string) (neon.GlobalObserved, error) {
			m.asked++
			return neon.GlobalObserved{}, nil
		},
		Stopped:  len(c.Leaders) == 0,
		Answers:  func(context.Context, string) bool { return false },
		Rehearse: func(write func(io.Writer) error) error { return write(io.Discard) },
		Save: func(write func(io.Writer) error) error {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				return err
			}
			m.saved = b.Bytes()
			return nil
		},
		Wrap: func(w io.Writer, _ string, _ time.Time, state io.WriterTo) error {
			_, err := state.WriteTo(w)
			return err
		},
	}
	return m
}

// crashAfter ends every try after one step.
func (m *move) crashAfter(step handover.Step) {
	m.After = func(s handover.Step) error {
		if s == step {
			return errCrash
		}
		return nil
	}
}

// founded is the state that a cluster begins with.
func (m *move) founded(t *testing.T) *fsm.State {
	t.Helper()
	s, err := fsm.ReadSnapshot(bytes.NewReader(m.saved))
	if err != nil {
		t.Fatal(err)
	}
	if s, err = fsm.Recover(s, "new"); err != nil {
		t.Fatal(err)
	}
	return s
}

// generations are those of a database.
func generations(c *neondb.Content) map[string]int64 {
	all := map[string]int64{}
	for _, r := range c.Shards {
		if r.Generation != nil {
			all[fmt.Sprintf("%s-%02x%02x", r.Tenant, r.Number, r.Count)] = int64(*r.Generation)
		}
	}
	return all
}

var steps = []handover.Step{
	handover.StepPlanned, handover.StepStopped, handover.StepTaken, handover.StepConverted,
	handover.StepHandedOut, handover.StepSaved,
}

// TestCutOverGoesOnAfterACrash ends the cut-over of random databases after each step, and
// runs it again: the outcome is the one without a crash, no number goes back, and the old
// controller can issue none that the new cluster issues.
func TestCutOverGoesOnAfterACrash(t *testing.T) {
	for seed := range *databases {
		shape := neonrows.Shape{Tenants: 5, Odd: seed%2 == 1}
		straight := newMove(neonrows.Random(seed, shape))
		if _, err := straight.Do(t.Context()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, step := range steps {
			m := newMove(neonrows.Random(seed, shape))
			before := generations(m.db.Content)
			m.crashAfter(step)
			if _, err := m.Do(t.Context()); !errors.Is(err, errCrash) {
				t.Fatalf("seed %d: no crash after %s: %v", seed, step, err)
			}
			m.After = nil
			_, err := m.Do(t.Context())
			if step == handover.StepHandedOut || step == handover.StepSaved {
				if !errors.Is(err, neondb.ErrHandedOut) {
					t.Fatalf("seed %d: handed out twice after %s: %v", seed, step, err)
				}
				m.Again = true
				_, err = m.Do(t.Context())
			} else if !bytes.Equal(m.saved, straight.saved) {
				t.Errorf("seed %d: another state after a crash after %s", seed, step)
			}
			if err != nil {
				t.Fatalf("seed %d: again after %s: %v", seed, step, err)
			}
			if m.db.Content.Leaders[0].Address != "http://us/" {
				t.Errorf("seed %d: %+v leads", seed, m.db.Content.Leaders)
			}
			db := generations(m.db.Content)
			for sh := range m.founded(t).ShardsFrom(neon.ShardID{}) {
				name := fmt.Sprintf("%s-%02x%02x", sh.ID.Tenant, uint8(sh.ID.Number),
					uint8(sh.ID.Count))
				was, ok := before[name]
				if ok && (db[name] < was+neondb.Jump ||
					int64(sh.Generation) < db[name]+fsm.RecoveryGap) {
					t.Errorf("seed %d: %s had %d, then %d, and begins with %d", seed, name, was,
						db[name], sh.Generation)
				}
			}
		}
	}
}

// TestAbortJumpsOverAllThatWasIssued hands back after a crash after each step.
func TestAbortJumpsOverAllThatWasIssued(t *testing.T) {
	for seed := range min(*databases, 20) {
		for _, step := range steps {
			m := newMove(neonrows.Random(seed, neonrows.Shape{Tenants: 5}))
			leaders := m.db.Content.Leaders
			m.crashAfter(step)
			if _, err := m.Do(t.Context()); !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			_, err := handover.Abort(t.Context(), m.db, false)
			switch step {
			case handover.StepPlanned, handover.StepStopped:
				if !errors.Is(err, neondb.ErrNotTaken) {
					t.Errorf("after %s: %v", step, err)
				}
				continue
			case handover.StepHandedOut, handover.StepSaved:
				if !errors.Is(err, neondb.ErrHandedOut) {
					t.Errorf("after %s: %v", step, err)
				}
				_, err = handover.Abort(t.Context(), m.db, true)
			}
			if err != nil {
				t.Fatalf("after %s: %v", step, err)
			}
			if len(leaders) != len(m.db.Content.Leaders) ||
				len(leaders) > 0 && leaders[0] != m.db.Content.Leaders[0] {
				t.Errorf("after %s: %+v leads, not %+v", step, m.db.Content.Leaders, leaders)
			}
			if m.saved == nil {
				continue
			}
			db := generations(m.db.Content)
			for sh := range m.founded(t).ShardsFrom(neon.ShardID{}) {
				name := fmt.Sprintf("%s-%02x%02x", sh.ID.Tenant, uint8(sh.ID.Number),
					uint8(sh.ID.Count))
				if sh.HasGeneration && db[name] <= int64(sh.Generation)+fsm.RecoveryGap {
					t.Errorf("seed %d: %s goes on from %d, a cluster has had %d", seed, name,
						db[name], sh.Generation)
				}
			}
		}
	}
}

func TestCutOverRefusals(t *testing.T) {
	fresh := func() *move { return newMove(neonrows.Random(3, neonrows.Shape{Tenants: 3})) }
	untouched := func(m *move) {
		t.Helper()
		if m.db.Content.Mark != nil || m.saved != nil {
			t.Errorf("changed: %+v", m.db.Content.Mark)
		}
	}

	m := fresh()
	m.Accept, m.Stopped = nil, false
	m.db.Content.Shards[0].Placement = "nonsense"
	if _, err := m.Do(t.Context()); !errors.Is(err, handover.ErrBlocked) || m.asked > 0 {
		t.Errorf("blocked: %v, asked %d times", err, m.asked)
	}
	untouched(m)

	m = fresh()
	m.Stopped = false
	m.StepDown = func(context.Context, string) (neon.GlobalObserved, error) {
		return nil, errors.New("nobody answers")
	}
	if _, err := m.Do(t.Context()); !errors.Is(err, handover.ErrLeaderAlive) {
		t.Errorf("alive: %v", err)
	}
	untouched(m)

	m.db.Content.Leaders = nil
	if _, err := m.Do(t.Context()); !errors.Is(err, handover.ErrLeaderAlive) {
		t.Errorf("nobody known: %v", err)
	}
	untouched(m)

	m = fresh()
	m.StepDown = func(context.Context, string) (neon.GlobalObserved, error) {
		m.db.Content.Leaders = []neondb.Leader{{Address: "http://third/"}}
		return nil, nil
	}
	m.Stopped = false
	if m.db.Content.Leaders == nil {
		m.db.Content.Leaders = []neondb.Leader{{Address: "http://old/"}}
	}
	if _, err := m.Do(t.Context()); !errors.Is(err, neondb.ErrRaced) {
		t.Errorf("raced: %v", err)
	}
	untouched(m)

	m = fresh()
	m.db.Content.Mark = &neondb.Mark{Kind: neondb.Copy}
	if _, err := m.Do(t.Context()); !errors.Is(err, handover.ErrIsCopy) || m.saved != nil {
		t.Errorf("copy: %v", err)
	}
}

// listings answer for pageservers, but for those that they do not have.
type listings map[neon.NodeID][]neon.ListedLocation

func (l listings) Locations(
	_ context.Context, n *fsm.Node,
) ([]neon.ListedLocation, error) {
	if list, ok := l[n.ID]; ok {
		return list, nil
	}
	return nil, errors.New("no answer")
}

func TestPlanAsksPageservers(t *testing.T) {
	tenant := "0123456789abcdef0123456789abcdef"
	id, err := neon.ParseTenantID(tenant)
	if err != nil {
		t.Fatal(err)
	}
	shard := neon.Unsharded(id)
	c := &neondb.Content{Schema: neondb.Schema{}}
	for n := range int64(3) {
		c.Nodes = append(c.Nodes, neondb.NodeRow{
			ID: n + 1, Scheduling: "active", Lifecycle: "active",
		})
	}
	c.Shards = []neondb.ShardRow{{
		Tenant: tenant, Stripe: 2048, Generation: new(int32(7)), Pageserver: new(int64(1)),
		Placement: `{"Attached":1}`, Config: "{}", Scheduling: `"Active"`,
	}}
	at := func(mode neon.LocationMode, g neon.Generation) []neon.ListedLocation {
		return []neon.ListedLocation{{Shard: shard, Config: &neon.LocationConfig{
			Mode: mode, Generation: &g,
		}}}
	}
	secondary := at(neon.Secondary, 0)
	secondary[0].Config.Generation = nil
	m := newMove(c)
	m.Stopped = true
	m.Pageservers = listings{1: at(neon.AttachedSingle, 7), 2: secondary}
	r, err := m.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Findings.Count(neonstate.NotListed); n != 1 {
		t.Errorf("%d pageservers did not answer: %v", n, r.Findings)
	}
	sh, _ := m.founded(t).Shard(shard)
	if len(sh.Secondary) != 1 || sh.Secondary[0] != 2 || sh.Attached != 1 {
		t.Errorf("placed on %d with %v", sh.Attached, sh.Secondary)
	}
	m.Accept = nil
	m.Pageservers = listings{1: at(neon.AttachedSingle, 8)}
	if r, err := handover.Plan(t.Context(), m.Source); err != nil || len(r.Blocking) != 1 ||
		r.Blocking[0] != neonstate.GenerationBehind {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestStepDownTellsTheSecondaries(t *testing.T) {
	m := newMove(neonrows.Random(0, neonrows.Shape{Tenants: 1}))
	m.Stopped = false
	m.db.Content.Leaders = []neondb.Leader{{Address: "http://old/"}}
	m.db.Content.Shards[0].Placement = `{"Attached":1}`
	m.db.Content.Shards[0].Pageserver = new(int64(1))
	m.db.Content.Shards, m.db.Content.Health = m.db.Content.Shards[:1], nil
	m.db.Content.Shards[0].Count = 0
	id, _ := neon.ParseTenantID(m.db.Content.Shards[0].Tenant)
	m.db.Content.Timelines, m.db.Content.Ops, m.db.Content.Imports = nil, nil, nil
	m.StepDown = func(_ context.Context, address string) (neon.GlobalObserved, error) {
		if address != "http://old/" {
			t.Errorf("asked %s", address)
		}
		return neon.GlobalObserved{neon.Unsharded(id): {
			Locations: neon.Table[neon.NodeID, neon.ObservedLocation]{
				2: {Config: &neon.LocationConfig{Mode: neon.Secondary}}, 1: {},
			},
		}}, nil
	}
	if _, err := m.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sh, _ := m.founded(t).Shard(neon.Unsharded(id)); len(sh.Secondary) != 1 {
		t.Errorf("secondaries %v", sh.Secondary)
	}
}

func TestExport(t *testing.T) {
	m := newMove(neonrows.Random(5, neonrows.Shape{Tenants: 5}))
	if _, err := m.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := handover.Export{
		Database: m.db, State: m.founded(t), Now: time.Unix(1_900_000_000, 0), Source: "c",
		Accept: accepted,
	}
	if _, err := e.Do(t.Context()); !errors.Is(err, neondb.ErrNotEmpty) {
		t.Errorf("written: %v", err)
	}
	e.Overwrite, e.Plan = true, true
	if w, err := e.Do(t.Context()); err != nil || w.Shards == 0 || m.db.Content.Mark == nil {
		t.Errorf("plan: %+v, %v", w, err)
	}
	e.Plan = false
	if _, err := e.Do(t.Context()); err != nil || m.db.Content.Mark != nil ||
		len(m.db.Content.Leaders) != 0 {
		t.Errorf("%v, %+v", err, m.db.Content.Mark)
	}
	to := &neonrows.Memory{}
	e.Database, e.Copy = to, true
	if w, err := e.Do(t.Context()); err != nil || !w.Copy || to.Content.Mark.Kind != neondb.Copy {
		t.Errorf("copy: %+v, %v", w, err)
	}
	travelling, r := fsm.Apply(e.State, 9, fsm.RequestID{}, fsm.SetLevel{Level: fsm.Level})
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	travelling, r = fsm.Apply(travelling, 10, fsm.RequestID{},
		fsm.BeginTravel{Tenant: neon.TenantID{1}})
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	e.State, e.Accept = travelling, nil
	if _, err := e.Do(t.Context()); !errors.Is(err, handover.ErrBlocked) {
		t.Errorf("blocked: %v", err)
	}
}

func TestFollowTellsWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &neonrows.Memory{Content: neonrows.Random(2, neonrows.Shape{Tenants: 3})}
		ctx, stop := context.WithCancel(t.Context())
		looks := 0
		err := handover.Follow(ctx, handover.Source{Database: db}, time.Minute,
			func(s handover.Seen) error {
				switch looks++; looks {
				case 1:
					if len(s.Changes) != 0 {
						t.Errorf("changes at first: %v", s.Changes)
					}
					rows := append([]neondb.ShardRow{}, db.Content.Shards...)
					rows[0].Generation, rows[0].Placement = new(int32(5000)), "nonsense"
					db.Content.Shards = rows
					db.Content.Nodes = db.Content.Nodes[1:]
				case 2:
					if len(s.Changes) != 2 || s.Findings.Count(neonstate.BadRow) != 1 {
						t.Errorf("changes %v, findings %v", s.Changes, s.Findings)
					}
					for _, c := range s.Changes {
						if c.Was == "" || c.String() == "" || c.Table == "nodes" && c.Is != "" {
							t.Errorf("%+v", c)
						}
					}
				case 3:
					if len(s.Changes)+len(s.Findings)+len(s.Gone) != 0 {
						t.Errorf("again: %+v", s)
					}
					stop()
				}
				return nil
			})
		if err != nil || looks != 3 {
			t.Errorf("%d looks, %v", looks, err)
		}
	})
}
