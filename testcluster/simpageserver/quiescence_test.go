package simpageserver

import (
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
)

func TestQuiescenceI8AndI11(t *testing.T) {
	w := newWorld(t, Options{})
	hook := NewHook(HookOptions{Oracle: w.fleet.Oracle()})
	defer hook.Close()
	a, b := w.node(1), w.node(2)
	shard := shardOf(0)
	w.attach(a, shard)
	tell := func(node neon.NodeID) {
		if f := hook.take(neon.NotifyAttach{
			Tenant: shard.Tenant, Shards: neon.List[neon.NotifyShard]{{Node: node}},
		}, 0, false); f != nil {
			t.Fatal(f)
		}
	}
	rest := func(want string) {
		t.Helper()
		err := w.fleet.CheckQuiescent()
		if want == "" && err != nil ||
			want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Fatalf("at rest: %v, want %q", err, want)
		}
	}
	rest("")
	tell(1)
	rest("")
	tell(2)
	rest("I8")
	tell(1)
	w.put(a, shard, neon.AttachedMulti, 1)
	rest("I11") // not single
	w.put(a, shard, neon.AttachedSingle, 1)
	w.auth.grant(shard, 2)
	rest("I11") // a newer generation is committed
	w.put(b, shard, neon.AttachedSingle, 2)
	rest("I7")
	tell(2)
	w.put(a, shard, neon.Detached, 0)
	rest("")
	b.SetBehaviour(Behaviour{SlotBusy: time.Hour})
	go w.call(b, "PUT", locationPath(shardOf(1)), confOf(shardOf(1), neon.Secondary, 0))
	eventually(t, "in progress",
		func() bool { v, _ := b.Location(shardOf(1)); return v.State == InProgress })
	rest("I11")
	w.silent()
}

func TestPlacementI12(t *testing.T) {
	w := newWorld(t, Options{})
	a, b := w.node(1), w.node(2)
	w.attach(a, shardOf(0))
	w.put(b, shardOf(0), neon.Secondary, 0)
	good := map[neon.ShardID]Intent{shardOf(0): {Attached: 1, Secondaries: []neon.NodeID{2}}}
	if err := w.fleet.CheckPlacement(good); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]map[neon.ShardID]Intent{
		"unknown location": {},
		"swapped":          {shardOf(0): {Attached: 2, Secondaries: []neon.NodeID{1}}},
		"same node twice":  {shardOf(0): {Attached: 1, Secondaries: []neon.NodeID{1, 2}}},
		"missing": {
			shardOf(0): {Attached: 1, Secondaries: []neon.NodeID{2}}, shardOf(1): {Attached: 1},
		},
	} {
		if err := w.fleet.CheckPlacement(bad); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestAttachedExactlyOnce(t *testing.T) {
	w := newWorld(t, Options{})
	a, b := w.node(1), w.node(2)
	shards := []neon.ShardID{shardOf(0)}
	if w.fleet.AttachedExactlyOnce(shards) == nil {
		t.Error("attached nowhere passes")
	}
	w.attach(a, shards[0])
	if err := w.fleet.AttachedExactlyOnce(shards); err != nil {
		t.Error(err)
	}
	w.attach(b, shards[0])
	if w.fleet.AttachedExactlyOnce(shards) == nil {
		t.Error("attached twice passes")
	}
	a.Kill()
	if err := w.fleet.AttachedExactlyOnce(shards); err != nil {
		t.Error(err)
	}
	w.auth.grant(shards[0], 1)
	if w.fleet.AttachedExactlyOnce(shards) == nil {
		t.Error("an old generation passes")
	}
	if got := w.fleet.Attached(); len(got) != 1 || got[2] != 1 {
		t.Errorf("attached %v", got)
	}
}
