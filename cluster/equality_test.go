package cluster

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// spoil changes the state of a replica behind the back of its log.
func (nd *node) spoil() {
	nd.machine.mu.Lock()
	defer nd.machine.mu.Unlock()
	nd.machine.rows = slices.Clone(nd.machine.rows)
	nd.machine.rows[len(nd.machine.rows)-1] += " spoiled"
	rows := nd.machine.rows
	nd.machine.rows, nd.machine.sum = nil, 0
	for _, r := range rows {
		nd.machine.add(r)
	}
}

func (nd *node) inService() bool { return nd.Cluster != nil && nd.Status().Diverged == "" }

// within demands a condition after a virtual time, to the tenth of a second.
func within(t *testing.T, limit time.Duration, what string, f func() bool) {
	t.Helper()
	began := time.Now()
	for !f() {
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("%s: after %v", what, time.Since(began))
}

// write keeps some load on the cluster until stop is called.
func (tr *trio) write(pause time.Duration) (stop func() (acked []string)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan []string)
	nodes := slices.Clone(tr.nodes)
	go func() {
		var acked []string
		for i := 0; ctx.Err() == nil; i++ {
			row := seqRow(1, i)
			for _, nd := range nodes {
				if c := nd.Cluster; c == nil {
					continue
				} else if _, err := c.Propose(ctx, []byte(row)); err == nil {
					acked = append(acked, row)
					break
				}
			}
			time.Sleep(pause)
		}
		done <- acked
	}()
	return sync.OnceValue(func() []string { cancel(); return <-done })
}

// demandEqual demands that all live replicas have the state of a log without a fault,
// with all that was acknowledged.
func (tr *trio) demandEqual(t *testing.T, acked []string) {
	t.Helper()
	var want []string
	for _, nd := range tr.nodes {
		if nd.Cluster == nil {
			continue
		}
		if err := nd.ReadBarrier(context.Background()); err != nil {
			t.Fatal(err)
		}
		got := nd.machine.all()
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has %d rows, another %d", nd.cfg.ID, len(got), len(want))
		}
		have := make(map[string]int)
		for _, r := range got {
			have[r]++
		}
		for _, r := range acked {
			if have[r] != 1 {
				t.Errorf("%s has %q %d times", nd.cfg.ID, r, have[r])
			}
		}
	}
}

// TestADivergedReplicaIsTakenOutOfServiceAndMended whether it follows or leads, idle and
// under load, and its restart brings nothing back.
func TestADivergedReplicaIsTakenOutOfServiceAndMended(t *testing.T) {
	for name, c := range map[string]struct {
		leads bool
		pause time.Duration
	}{
		"follower, idle": {false, time.Hour}, "follower, busy": {false, 3 * time.Millisecond},
		"leader, idle": {true, time.Hour}, "leader, busy": {true, 3 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := startMemory(t, 3)
				bad := tr.leader()
				bad.mustPropose(t, "first")
				if !c.leads {
					bad = tr.follower()
				}
				stop := tr.write(c.pause)
				defer stop()
				time.Sleep(3 * time.Second)
				bad.spoil()
				within(t, 3*time.Second, "found", func() bool {
					return !bad.inService() || bad.Status().Mended > 0
				})
				if err := bad.ReadBarrier(context.Background()); !errors.Is(err, ErrDiverged) &&
					!bad.inService() {
					t.Fatalf("a read of a wrong state: %v", err)
				}
				if bad.IsLeader() {
					t.Fatal("a replica with a wrong state leads")
				}
				within(t, 5*time.Second, "back in service", bad.inService)
				for _, nd := range tr.nodes {
					if !nd.inService() || nd != bad && nd.Status().Mended != 0 {
						t.Errorf("%s: %+v", nd.cfg.ID, nd.Status())
					}
				}
				tr.demandEqual(t, stop())
				if bad.Status().Mended != 1 || !bad.candidacy.mayStand() {
					t.Errorf("%+v", bad.Status())
				}
				_ = bad.kill()
				bad = tr.start(slices.Index(tr.nodes, bad))
				time.Sleep(3 * time.Second)
				if !bad.inService() || bad.Status().Mended != 0 {
					t.Error("the wrong state came back with a restart")
				}
				tr.demandEqual(t, nil)
			})
		})
	}
}

// TestADivergedReplicaDoesNotLeadWhenTheLeaderDies before it could be mended.
func TestADivergedReplicaDoesNotLeadWhenTheLeaderDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		lead.mustPropose(t, "first")
		bad := tr.follower()
		time.Sleep(2 * time.Second)
		// No server sends a state for now.
		for _, nd := range tr.nodes {
			for range maxSending {
				nd.fsm.sending <- struct{}{}
			}
		}
		bad.spoil()
		within(t, 3*time.Second, "found", func() bool { return !bad.inService() })
		time.Sleep(time.Second)
		tr.net.Kill(lead.cfg.RaftListen[:2])
		_ = lead.kill()
		next := tr.leader()
		if next == bad {
			t.Fatal("the diverged replica leads")
		}
		for range maxSending {
			<-next.fsm.sending
		}
		next.mustPropose(t, "second")
		within(t, 30*time.Second, "mended by the next leader", bad.inService)
		tr.demandEqual(t, []string{"first", "second"})
	})
}

// TestWithoutAMajorityNobodyIsMended: with one of three away it is not known which of the
// other two is right. Neither serves anything until the third one says so, or until the
// wrong one has made its state anew.
func TestWithoutAMajorityNobodyIsMended(t *testing.T) {
	for name, c := range map[string]struct{ leads, restarts bool }{
		"the follower is wrong": {}, "the leader is wrong": {leads: true},
		"the follower is wrong and restarts": {restarts: true},
		"the leader is wrong and restarts":   {leads: true, restarts: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := startMemory(t, 3)
				lead := tr.leader()
				lead.mustPropose(t, "first")
				away := tr.follower()
				i := slices.Index(tr.nodes, away)
				time.Sleep(2 * time.Second)
				_ = away.kill()
				other := tr.follower()
				bad := other
				if c.leads {
					bad = lead
				}
				bad.spoil()
				within(t, 3*time.Second, "seen", func() bool {
					return !other.inService() && !lead.inService()
				})
				for begun := time.Now(); time.Since(begun) < 10*time.Second; {
					if lead.inService() || other.inService() || lead.IsLeader() ||
						lead.Status().Mended+other.Status().Mended != 0 {
						t.Fatalf("%+v, %+v", lead.Status(), other.Status())
					}
					time.Sleep(50 * time.Millisecond)
				}
				if c.restarts {
					_ = bad.kill()
					bad = tr.start(slices.Index(tr.nodes, bad))
				} else {
					tr.start(i)
				}
				within(t, 10*time.Second, "all in service", func() bool {
					return lead.inService() && other.inService() &&
						(c.restarts || bad.Status().Mended == 1)
				})
				tr.leader().mustPropose(t, "second")
				tr.demandEqual(t, []string{"first", "second"})
			})
		})
	}
}

// TestWhoeverComesBackCanTell who is right, also if one of the two that differ has died and
// the other one has entries that nobody else has.
func TestWhoeverComesBackCanTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		away := tr.follower()
		i := slices.Index(tr.nodes, away)
		_ = away.kill()
		lead.mustPropose(t, "first")
		bad := tr.follower()
		time.Sleep(2 * time.Second)
		bad.spoil()
		within(t, 3*time.Second, "seen", func() bool {
			return !bad.inService() && !lead.inService()
		})
		_ = bad.kill()
		time.Sleep(5 * time.Second) // the lead is lost
		tr.start(i)
		within(t, 20*time.Second, "in service", func() bool {
			return lead.inService() && tr.nodes[i].inService()
		})
		tr.leader().mustPropose(t, "second")
		tr.demandEqual(t, []string{"first", "second"})
	})
}

func TestJudgement(t *testing.T) {
	abc := []string{"a", "b", "c"}
	at := func(hashes ...uint64) map[string]map[uint64]uint64 {
		m := make(map[string]map[uint64]uint64)
		for i, h := range hashes {
			if h != 0 {
				m[string(rune('a'+i))] = map[uint64]uint64{7: h}
			}
		}
		return m
	}
	confirmed := &divergence{index: 5, confirmed: true, sources: []string{"b"}}
	for name, c := range map[string]struct {
		q         question
		known     bool
		confirmed bool
		sources   []string
		out       bool
	}{
		"equal": {q: question{self: "c", leader: "a", hashes: at(1, 1, 1)}, known: true},
		"diverged": {
			question{self: "c", leader: "b", hashes: at(1, 1, 2)}, true, true, []string{"b", "a"},
			true,
		},
		"the leader has diverged, seen by itself": {
			question{self: "a", leader: "a", hashes: at(2, 1, 1)}, true, true, []string{"b", "c"},
			true,
		},
		"the leader has diverged, seen by another": {
			q: question{self: "b", leader: "a", hashes: at(2, 1, 1)}, known: true,
		},
		"another has diverged": {
			q: question{self: "b", leader: "a", hashes: at(1, 1, 2)}, known: true,
		},
		"two of three, seen by the follower": {
			question{self: "c", leader: "a", hashes: at(1, 0, 2)}, true, false, nil, true,
		},
		"two of three, seen by the leader": {
			question{self: "a", leader: "a", hashes: at(1, 0, 2)}, true, false, nil, true,
		},
		"two of three, of which one knows to be wrong": {
			q:     question{self: "a", leader: "a", wrong: []string{"c"}, hashes: at(1, 0, 2)},
			known: true,
		},
		"two followers of an absent leader": {
			q: question{self: "c", leader: "a", hashes: at(0, 1, 2)},
		},
		"all differ": {
			question{self: "c", leader: "a", hashes: at(1, 2, 3)}, true, false, nil, true,
		},
		"nobody answers": {q: question{self: "c", leader: "a", hashes: at(0, 0, 2)}},
		"too old":        {q: question{self: "c", leader: "a", least: 8, hashes: at(1, 1, 2)}},
		"a majority has spoken before": {
			question{self: "c", leader: "a", old: confirmed, hashes: at(2, 0, 2, 0)}, true, false,
			nil, false,
		},
		"a majority spoke before, now two differ": {
			question{self: "c", leader: "c", old: confirmed, hashes: at(1, 0, 2)}, true, true,
			[]string{"b"}, true,
		},
		"a learner": {
			question{self: "d", leader: "a", hashes: at(1, 1, 1, 2)}, true, true,
			[]string{"a", "b", "c"}, true,
		},
	} {
		c.q.voters = abc
		d, known := c.q.judge()
		if known != c.known || (d != nil) != c.out {
			t.Errorf("%s: %+v, %v", name, d, known)
			continue
		}
		if d != nil && (d.confirmed != c.confirmed || !slices.Equal(d.sources, c.sources)) {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// TestHashesOfTwoSchemesAreNotCompared: two versions may compute them in two ways.
func TestHashesOfTwoSchemesAreNotCompared(t *testing.T) {
	var p points
	p.add(1, point{64, 5})
	if _, _, known := p.compare(2, []point{{64, 6}}); known {
		t.Error("compared")
	}
	if at, equal, known := p.compare(1, []point{{64, 6}}); !known || equal || at != 64 {
		t.Error("not compared")
	}
}

func TestPointsAreBoundedAndHaveSomeInCommon(t *testing.T) {
	var a, b points
	for i := uint64(1); i < 5000; i++ {
		if a.add(1, point{i, i}); i%64 == 0 || i%7 == 0 {
			b.add(1, point{i, i})
		}
	}
	scheme, list := b.newest()
	if at, equal, known := a.compare(scheme, list); !known || !equal || at != 4998 {
		t.Errorf("%d, %v, %v of %v", at, equal, known, list)
	}
	if len(list) > reportedPoints {
		t.Errorf("%d points in a report", len(list))
	}
	_, all := a.all()
	scheme, got, err := decodePoints(a.encode())
	if err != nil || scheme != 1 || len(all) != keptPoints || !maps.Equal(all, got) {
		t.Errorf("%d points, %v", len(all), err)
	}
	if len(a.encode()) > maxPeerFrame-peerHead {
		t.Error("too many points for a frame")
	}
}

// TestAStateIsReplacedBetweenTwoEntries at every distance between the two replicas.
func TestAStateIsReplacedBetweenTwoEntries(t *testing.T) {
	log := raft.NewInmemStore()
	var entries []*raft.Log
	for i := uint64(1); i <= 200; i++ {
		l := &raft.Log{Index: i, Type: raft.LogCommand, Data: encodeFrame([][]byte{{byte(i)}})}
		if i%50 == 0 {
			l = &raft.Log{Index: i, Type: raft.LogNoop}
		} else {
			entries = append(entries, l)
		}
		if err := log.StoreLog(l); err != nil {
			t.Fatal(err)
		}
	}
	empty := func() *fsm { return newFSM(&ledger{}, func() {}, Observer{}.withDefaults()) }
	ended := empty()
	ended.ApplyBatch(entries)
	for _, there := range []int{1, 63, 64, 100, 150} {
		for _, here := range []int{1, 63, 65, 100, 149} {
			from, to := empty(), empty()
			from.ApplyBatch(entries[:there])
			to.ApplyBatch(entries[:here])
			to.machine.(*ledger).add("wrong")
			head, state, err := from.capture()
			if err != nil {
				t.Fatal(err)
			}
			var sent bytes.Buffer
			sent.Write(appendPeerFrame(nil, peerFrame{kind: answerPart, body: head}))
			var content bytes.Buffer
			_, _ = state.WriteTo(&content)
			sent.Write(appendPeerFrame(nil, peerFrame{kind: answerPart, body: content.Bytes()}))
			sent.Write(appendPeerFrame(nil, peerFrame{kind: answerOK}))
			moved, err := readState(&sent)
			if err != nil {
				t.Fatal(err)
			}
			if err := to.replace(moved, log); err != nil {
				t.Fatal(err)
			}
			if _, err := to.Snapshot(); (err != nil) != (there > here) {
				t.Errorf("%d over %d: a snapshot: %v", there, here, err)
			}
			to.ApplyBatch(entries[here:])
			if _, err := to.Snapshot(); err != nil {
				t.Error(err)
			}
			_, want := ended.digest.Digest()
			if _, got := to.digest.Digest(); got != want ||
				to.applied.index() != ended.applied.index() {
				t.Errorf("%d over %d: another state at %d", there, here, to.applied.index())
			}
			if _, equal, known := to.points.compare(ended.points.newest()); !equal || !known {
				t.Errorf("%d over %d: no equal point", there, here)
			}
		}
	}
}

func FuzzMovedState(f *testing.F) {
	f.Add(appendPeerFrame(appendPeerFrame(nil, peerFrame{
		kind: answerPart, body: make([]byte, stateHead),
	}), peerFrame{kind: answerOK}))
	f.Add((&points{added: 1, ring: [keptPoints]point{{1, 2}}}).encode())
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = readState(bytes.NewReader(b))
		_, _, _ = decodePoints(b)
	})
}
