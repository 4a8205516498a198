package fsm

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"quorate/api/neon"
)

var update = flag.Bool("update", false, "write the golden log and snapshot of the current version")

// history is a sequence with every command, most accepted and some refused. It is
// what the golden files of version 1 hold: it may not change.
func history() []Command {
	tenant, other, third := neon.TenantID{
		1, 15: 1,
	}, neon.TenantID{2, 15: 2}, neon.TenantID{5, 15: 5}
	config, err := neon.ParseTenantConfig([]byte(`{"gc_horizon":4096,"gc_period":"300s"}`),
		neon.RejectUnknown)
	if err != nil {
		panic(err)
	}
	a, b := neon.MakeAZ("zone-a"), neon.MakeAZ("zone-b")
	addr := func(port uint16) NodeAddr {
		return NodeAddr{
			HTTPHost: "ps.example", HTTPPort: port, PGHost: "ps.example", PGPort: port + 1,
		}
	}
	withTLS := addr(9002)
	withTLS.HTTPSPort, withTLS.GRPCHost, withTLS.GRPCPort = 9443, "grpc.example", 51051
	ids := neon.ShardIDs(tenant, 2)
	all := append([]Command{
		SetCluster{ID: "golden"},
		SetLeader{
			Leader{ServerID: "n1", Address: "http://n1:1234", StartedAt: 1700000000000, Term: 2},
		},
		RegisterNode{ID: 1, Addr: addr(9001), AZ: a},
		RegisterNode{ID: 2, Addr: addr(9002), AZ: b},
		RegisterNode{ID: 2, Addr: withTLS, AZ: b},
		RegisterNode{ID: 3, Addr: addr(9003), AZ: b},
		RegisterNode{ID: 3, Addr: addr(9004), AZ: b}, // refused
		SetNodeAvailability{Verdicts: []Verdict{
			{Node: 1, To: neon.NodeActive}, {Node: 2, To: neon.NodeActive},
			{Node: 3, From: neon.NodeOffline, To: neon.NodeActive},
		}},
		SetNodeScheduling{Node: 3, Scheduling: neon.SchedulingPause},
		CreateTenant{
			ID: tenant, Count: 2, Stripe: 2048, Policy: neon.Attached(1),
			Scheduling: neon.ShardActive, Config: config,
			Shards: []NewShard{
				{Attached: 1, Secondary: []neon.NodeID{2}, PreferredAZ: a},
				{Attached: 2, Secondary: []neon.NodeID{1}, PreferredAZ: b},
			},
		},
		CreateTenant{
			ID: other, Stripe: 32768, Policy: neon.Placement{Kind: neon.PlaceSecondary},
			Scheduling:   neon.ShardEssential,
			NoGeneration: true, Shards: []NewShard{{Secondary: []neon.NodeID{3}}},
		},
		// the last refused
		IssueGenerations{Items: []Issue{
			{Shard: ids[0], Node: 1}, {Shard: ids[1], Node: 2}, {Shard: ids[1], Node: 1},
		}},
		AckNotifications{Acks: []Ack{{Shard: ids[0], Node: 1}, {Shard: ids[1], Node: 1}}},
		ReAttach{Node: 1},
		SetNodeAvailability{Verdicts: []Verdict{
			{Node: 1, From: neon.NodeWarmingUp, To: neon.NodeOffline, Incarnation: 1},
		}},
		SetIntents{Intents: []Intent{{
			Shard: ids[0], Sequence: 10, Attached: 2, Secondary: []neon.NodeID{1}, PreferredNode: 1,
			Issue: true,
		}}},
		SetIntents{Intents: []Intent{
			{Shard: ids[0], Sequence: 5, Attached: 2, Secondary: []neon.NodeID{1, 3}},
		}},
		UpdateTenant{ID: other, Sequence: 11, Policy: new(neon.Attached(0)),
			Scheduling: new(neon.ShardPause), Config: &config,
			Generation: new(neon.Generation(7)),
			Intents:    []Intent{{Shard: neon.Unsharded(other), Sequence: 11, Attached: 3}}},
		BeginDeleteTenant{ID: other},
		FinishDeleteTenant{ID: other},
		BeginDeleteTenant{ID: other}, // refused
		ReAttach{Node: 2},
		CreateTenant{ID: third, Stripe: 32768, Policy: neon.Attached(1),
			Scheduling: neon.ShardActive,
			Shards:     []NewShard{{Attached: 1, Secondary: []neon.NodeID{2}, PreferredAZ: a}}},
		IssueGenerations{Items: []Issue{{Shard: neon.Unsharded(third), Node: 1}}},
		BeginSplit{
			Tenant: third, Sequence: 23, Count: 2, Stripe: 2048,
			Parents: []SplitParent{{Shard: neon.Unsharded(third), Node: 1, Generation: 1}},
		},
		AbortSplit{Tenant: third, Began: 25, Code: neon.Conflict, Reason: "no"},
		CommitSplit{Tenant: third, Began: 25}, // refused
		FinishAbortedSplit{Tenant: third, Began: 25},
		BeginSplit{
			Tenant: third, Sequence: 28, Count: 2, Stripe: 2048,
			Parents: []SplitParent{{Shard: neon.Unsharded(third), Node: 1, Generation: 2}},
		},
		CommitSplit{
			Tenant: third, Began: 29, Secondary: [][]neon.NodeID{{2}, {3, 1}}, At: 1700000000003,
		},
		ForgetLeftovers{
			Tenant: third, Leftovers: []Leftover{{Shard: neon.Unsharded(third), Node: 1}},
		},
		BeginSplit{Tenant: tenant, Sequence: 10, Count: 4, Stripe: 2048, Parents: []SplitParent{
			{Shard: ids[0], Node: 2, Generation: 4}, {Shard: ids[1], Node: 2, Generation: 2},
		}},
		SetNodeScheduling{Node: 3, Scheduling: neon.SchedulingActive},
	}, append(safekeeperHistory(tenant), unmanagedHistory(tenant, ids)...)...)
	all = append(all, operationHistory(uint64(len(all)), a, addr)...)
	all = append(all, workHistory(tenant)...)
	return append(all, SetLevel{Level: 1}) // refused
}

// operationHistory is what happens to nodes after the entry last.
func operationHistory(last uint64, a neon.AZ, addr func(port uint16) NodeAddr) []Command {
	return []Command{
		RegisterNode{ID: 4, Addr: addr(9006), AZ: a},
		BeginNodeOperation{Node: 4, Kind: OperationDrain, Prior: neon.SchedulingActive},
		EndNodeOperation{Node: 4, Begun: last + 2, Ending: Cancelled},
		BeginNodeOperation{Node: 4, Kind: OperationFill, Prior: neon.SchedulingActive},
		// refused
		BeginNodeOperation{Node: 4, Kind: OperationDelete, Prior: neon.SchedulingFilling},
		EndNodeOperation{Node: 4, Begun: last + 4, Ending: Finished},
		BeginNodeOperation{
			Node: 4, Kind: OperationDelete, Force: true, Prior: neon.SchedulingActive,
		},
		DeleteNode{Node: 4, Begun: last + 7},
		BeginNodeOperation{Node: 1, Kind: OperationDelete, Prior: neon.SchedulingActive},
		RegisterNode{ID: 5, Addr: addr(9008), AZ: a},
		DeleteNode{Node: 5},
		ForgetTombstone{Node: 5},
		DeleteNode{Node: 2},
		RegisterNode{ID: 6, Addr: addr(9010), AZ: a},
		// refused
		BeginNodeOperation{
			Node: 6, Kind: OperationFill, Prior: neon.SchedulingActive, Exclusive: true,
		},
		BeginNodeOperation{Node: 6, Kind: OperationFill, Prior: neon.SchedulingActive},
		ReAttach{Node: 6},
	}
}

// secondHistory has what came with the second level. It may not change once a version of
// that level is released.
func secondHistory() []Command {
	tenant := neon.TenantID{1, 15: 1}
	id := neon.Unsharded(tenant)
	all := []Command{SetCluster{ID: "golden"}}
	for n := neon.NodeID(1); n <= 3; n++ {
		all = append(all, RegisterNode{ID: n, Addr: NodeAddr{HTTPHost: "ps"}},
			SetNodeAvailability{Verdicts: []Verdict{{Node: n, To: neon.NodeActive}}})
	}
	all = append(all,
		CreateTenant{
			ID: tenant, Stripe: 2048, Policy: neon.Attached(1), Scheduling: neon.ShardActive,
			Shards: []NewShard{{Attached: 1}},
		},
		IssueGenerations{Items: []Issue{{Shard: id, Node: 1}}},
		SetIntents{Intents: []Intent{{Shard: id, Sequence: 8, Attached: 1, PreferredNode: 3}}},
		BeginNodeOperation{Node: 3, Kind: OperationFill, Prior: neon.SchedulingActive, At: 1},
		SetLevel{Level: secondLevel},
		NoteSilence{Nodes: []Silence{{Node: 1, Since: 1700000000000}}},
		SetIntents{Intents: []Intent{{Shard: id, Sequence: 12, Attached: 2, Issue: true}}},
		BeginNodeOperation{
			Node: 3, Kind: OperationDelete, Prior: neon.SchedulingActive, At: 1700000000001,
		},
		EndNodeOperation{
			Node: 3, Begun: 15, Ending: GaveUp, At: 1700000000002,
			Left: Left{Count: 2, Named: []LeftShard{{Shard: id, Why: "why"}}},
		},
		BeginNodeOperation{Node: 1, Kind: OperationDrain, Prior: neon.SchedulingActive},
		ReAttach{Node: 1},
		EndNodeOperation{Node: 1, Begun: 17, Ending: Abandoned},
		BeginNodeOperation{
			Node: 3, Kind: OperationDelete, Force: true, Prior: neon.SchedulingActive,
		},
		DeleteNode{Node: 3, Begun: 20, At: 1700000000003},
		CreateTenant{ // refused
			ID: neon.TenantID{2}, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
			Generation: neon.MaxGeneration + 1, Shards: []NewShard{{Attached: 1}},
		},
		UpsertSafekeeper{ID: 1, Host: "sk"},
		UpsertSafekeeper{ID: 2, Host: "sk"},
		CreateTimeline{Tenant: tenant, Timeline: neon.TimelineID{1}, Set: []neon.NodeID{1, 2}},
		DeleteTimeline{Tenant: tenant, Timeline: neon.TimelineID{1}},
		SetSafekeeperScheduling{Safekeeper: 2, To: neon.SafekeeperDecomissioned},
		SettleSafekeeper{Safekeeper: 2},
		SetNodeAvailability{Verdicts: []Verdict{{Node: 1, To: neon.NodeActive}}},
		SetNodeScheduling{Node: 1, Scheduling: neon.SchedulingPause},
		SetIntents{Intents: []Intent{{
			Shard: id, Sequence: 14, Attached: 2, Secondary: []neon.NodeID{1}, PreferredNode: 1,
			Basis: &Basis{Generation: 2, Tenant: 8}, Insisted: true,
		}}},
		IssueGenerations{Items: []Issue{
			{Shard: id, Node: 2, Generation: 2, Basis: &Basis{Generation: 2, Tenant: 8}},
			{Shard: id, Node: 2, Generation: 3, Basis: &Basis{ // refused
				Generation: 3, Tenant: 8, Lost: 1, LostSequence: 18,
			}},
		}},
	)
	all = append(all,
		BeginNodeOperation{
			Node: 2, Kind: OperationDrain, Prior: neon.SchedulingActive, At: 1700000000004,
		},
		NoteProgress{Node: 2, Begun: uint64(len(all) + 1), At: 1700000000005},
		BeginDeleteTimeline{Tenant: tenant, Timeline: neon.TimelineID{2}},
		NoteRequest{},
	)
	return append(all, travelHistory(neon.TenantID{3, 15: 3}, uint64(len(all)))...)
}

// goldens are the histories by the directory of their files. Those of the level that is not
// released yet are written by -update.
var goldens = map[string]func() []Command{"v1": history, "v2": secondHistory}

const unreleased = "v2"

// TestGoldenFilesLoadForever replays the logs and loads the snapshots that earlier versions
// wrote, and demands the states that they had then, as words in state.txt. A change
// here means that replicas of two versions would disagree on one log: a new
// behaviour needs a new command, not a new meaning of an old one.
func TestGoldenFilesLoadForever(t *testing.T) {
	if *update {
		writeGolden(t, filepath.Join("testdata", unreleased), goldens[unreleased]())
	}
	for name := range goldens {
		t.Run(name, func(t *testing.T) { testGolden(t, filepath.Join("testdata", name)) })
	}
}

func testGolden(t *testing.T, dir string) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	replayed := NewStore()
	for log := read("log"); len(log) > 0; {
		index, n := binary.Uvarint(log)
		size, k := binary.Uvarint(log[n:])
		data := log[n+k : n+k+int(size)]
		replayed.Apply([]Entry{{Index: index, Data: data}})
		log = log[n+k+int(size):]
	}
	loaded, err := ReadSnapshot(bytes.NewReader(read("snapshot")))
	if err != nil {
		t.Fatal(err)
	}
	want := string(read("state.txt"))
	for name, s := range map[string]*State{"log": replayed.State(), "snapshot": loaded} {
		if got := dump(s); got != want {
			t.Errorf("the %s now gives\n%s\nand then gave\n%s", name, got, want)
		}
	}
	if loaded.Hash() != replayed.State().Hash() {
		t.Error("log and snapshot disagree")
	}
}

// TestTheFirstLevelIsWrittenAsItWas: members of the first version read what this one writes
// until all of them know the second level.
func TestTheFirstLevelIsWrittenAsItWas(t *testing.T) {
	dir := t.TempDir()
	writeGolden(t, dir, history())
	for _, name := range []string{"log", "snapshot"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("testdata", "v1", name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "snapshot" { // how it is compressed does not matter
			got, want = unpacked(t, got), unpacked(t, want)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("the %s is written in another way", name)
		}
	}
}

func writeGolden(t *testing.T, dir string, commands []Command) {
	t.Helper()
	var log []byte
	store := NewStore()
	for i, c := range commands {
		e := entry(t, uint64(i+1), RequestID{byte(i + 1)}, c)
		log = append(binary.AppendUvarint(binary.AppendUvarint(log, e.Index), uint64(len(e.Data))),
			e.Data...)
		store.Apply([]Entry{e})
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"log": log, "snapshot": snapshotOf(t, store.State()),
		"state.txt": []byte(dump(store.State())),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
