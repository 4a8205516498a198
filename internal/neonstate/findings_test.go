package neonstate_test

import (
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/neondb"
	"quorate/internal/neonstate"
)

const (
	tenantA   = "0123456789abcdef0123456789abcdef"
	tenantB   = "f123456789abcdef0123456789abcdef"
	timelineA = "abcdefabcdefabcdefabcdefabcdefab"
)

// plain is a database in which nothing is odd: two pageservers, three safekeepers, a tenant
// of one shard and a timeline.
func plain() *neondb.Content {
	c := &neondb.Content{
		Shards: []neondb.ShardRow{shardRow(tenantA, 0, 0)},
		Timelines: []neondb.TimelineRow{{
			Tenant: tenantA, Timeline: timelineA, StartLsn: "0/16B5A50", Generation: 1,
			Set: []int64{1, 2, 3}, ComputeNotified: 1, QuorumNotified: 1,
		}},
	}
	for id := range int64(3) {
		c.Safekeepers = append(c.Safekeepers, neondb.SafekeeperRow{
			ID: id + 1, Region: "r", Host: "sk", Port: 1, HTTPPort: 2, Scheduling: "active",
		})
		c.Nodes = append(c.Nodes, neondb.NodeRow{
			ID: id + 1, Scheduling: "active", Lifecycle: "active", HTTPHost: "ps", HTTPPort: 1,
			PGHost: "ps", PGPort: 2, AZ: "a",
		})
	}
	return c
}

func shardRow(tenant string, number, count int32) neondb.ShardRow {
	return neondb.ShardRow{
		Tenant: tenant, Number: number, Count: count, Stripe: 2048, Generation: new(int32(5)),
		Pageserver: new(int64(1)), Placement: `{"Attached":1}`, Config: "{}",
		Scheduling: `"Active"`,
	}
}

func TestNothingIsFoundInAPlainDatabase(t *testing.T) {
	in, err := neonstate.FromRows(plain(), neonstate.Seen{1: nil, 2: nil, 3: nil}, "origin")
	if err != nil {
		t.Fatal(err)
	}
	if len(in.Findings) > 0 {
		t.Errorf("found %v", in.Findings)
	}
	want := neonstate.Counts{
		Tenants: 1, Shards: 1, Attached: 1, Pageservers: 3, Safekeepers: 3, Timelines: 1,
	}
	if in.Counts != want {
		t.Errorf("counts %+v", in.Counts)
	}
	for n := range in.State.Nodes() {
		if !n.Schedulable() {
			t.Errorf("node %d would be evacuated: %+v", n.ID, n)
		}
	}
}

// TestFindings spoils the plain database in one way each.
func TestFindings(t *testing.T) {
	for name, test := range map[string]struct {
		spoil    func(*neondb.Content)
		code     neonstate.Code
		severity neonstate.Severity
	}{
		"unknown column": {func(c *neondb.Content) {
			c.Schema.Unknown = map[string]int{"nodes.new": 3}
		}, neonstate.UnknownSchema, neonstate.Wrong},
		"unknown column without values": {func(c *neondb.Content) {
			c.Schema.Unknown = map[string]int{"nodes.new": 0}
		}, neonstate.UnknownSchema, neonstate.Left},
		"hadron": {func(c *neondb.Content) { c.Schema.Unused = 1 }, neonstate.UnusedRows,
			neonstate.Left},
		"a part": {func(c *neondb.Content) { c.Schema.Lost = []string{"timelines"} },
			neonstate.IncompleteSchema, neonstate.Wrong},
		"no shards": {func(c *neondb.Content) { c.Shards, c.Timelines = nil, nil },
			neonstate.EmptyDatabase, neonstate.Wrong},
		"no pageservers": {func(c *neondb.Content) { c.Nodes = nil }, neonstate.EmptyDatabase,
			neonstate.Wrong},
		"two leaders": {func(c *neondb.Content) {
			c.Leaders = make([]neondb.Leader, 2)
		}, neonstate.MoreLeaders, neonstate.Wrong},
		"node policy": {func(c *neondb.Content) { c.Nodes[0].Scheduling = "Active" },
			neonstate.BadRow, neonstate.Wrong},
		"node port": {func(c *neondb.Content) { c.Nodes[2].HTTPPort = 70000 }, neonstate.BadRow,
			neonstate.Wrong},
		"node id": {func(c *neondb.Content) { c.Nodes[2].ID = -1 }, neonstate.BadRow,
			neonstate.Wrong},
		"lifecycle": {func(c *neondb.Content) { c.Nodes[2].Lifecycle = "x" }, neonstate.BadRow,
			neonstate.Wrong},
		"tombstone": {func(c *neondb.Content) { c.Nodes[2].Lifecycle = "deleted" },
			neonstate.Tombstone, neonstate.Changed},
		"shard on a tombstone": {func(c *neondb.Content) { c.Nodes[0].Lifecycle = "deleted" },
			neonstate.DeletedNode, neonstate.Changed},
		"drain": {func(c *neondb.Content) { c.Nodes[2].Scheduling = "draining" },
			neonstate.OperationUnknown, neonstate.Changed},
		"tenant id": {func(c *neondb.Content) { c.Shards[0].Tenant = "xyz" }, neonstate.BadRow,
			neonstate.Wrong},
		"upper case": {func(c *neondb.Content) {
			c.Shards[0].Tenant = strings.ToUpper(tenantA)
		}, neonstate.BadRow, neonstate.Wrong},
		"incomplete": {func(c *neondb.Content) { c.Shards[0] = shardRow(tenantA, 1, 2) },
			neonstate.IncompleteTenant, neonstate.Wrong},
		"three counts": {func(c *neondb.Content) {
			c.Shards = append(c.Shards, shardRow(tenantA, 0, 2), shardRow(tenantA, 0, 4))
		}, neonstate.IncompleteTenant, neonstate.Wrong},
		"split": {func(c *neondb.Content) {
			c.Shards = append(c.Shards, shardRow(tenantA, 0, 2), shardRow(tenantA, 1, 2))
		}, neonstate.SplitUnderWay, neonstate.Changed},
		"split flag": {func(c *neondb.Content) { c.Shards[0].Splitting = 1 },
			neonstate.SplitFlag, neonstate.Changed},
		"placement": {func(c *neondb.Content) { c.Shards[0].Placement = `{"Attached":-1}` },
			neonstate.BadRow, neonstate.Wrong},
		"scheduling": {func(c *neondb.Content) { c.Shards[0].Scheduling = `Active` },
			neonstate.BadRow, neonstate.Wrong},
		"config": {func(c *neondb.Content) { c.Shards[0].Config = `{` }, neonstate.BadRow,
			neonstate.Wrong},
		"unknown setting": {func(c *neondb.Content) { c.Shards[0].Config = `{"brand_new":1}` },
			neonstate.UnknownSetting, neonstate.Wrong},
		"unknown setting of the second": {func(c *neondb.Content) {
			a, b := shardRow(tenantA, 0, 2), shardRow(tenantA, 1, 2)
			b.Config = `{"brand_new":1}`
			c.Shards = []neondb.ShardRow{a, b}
		}, neonstate.UnknownSetting, neonstate.Wrong},
		"nobody asked": {func(*neondb.Content) {}, neonstate.NotAsked, neonstate.Changed},
		"mixed": {func(c *neondb.Content) {
			a, b := shardRow(tenantA, 0, 2), shardRow(tenantA, 1, 2)
			a.Placement, a.Pageserver = `"Detached"`, nil
			c.Shards = []neondb.ShardRow{a, b}
		}, neonstate.MixedSettings, neonstate.Wrong},
		"no generation": {func(c *neondb.Content) {
			c.Shards[0].Generation, c.Shards[0].Pageserver = nil, nil
		}, neonstate.NoGeneration, neonstate.Wrong},
		"secondary without": {func(c *neondb.Content) {
			c.Shards[0].Generation, c.Shards[0].Pageserver = nil, nil
			c.Shards[0].Placement = `"Secondary"`
		}, neonstate.NoGeneration, neonstate.Changed},
		"owner without": {func(c *neondb.Content) { c.Shards[0].Generation = nil },
			neonstate.OwnerWithout, neonstate.Wrong},
		"owner unwanted": {func(c *neondb.Content) { c.Shards[0].Placement = `"Detached"` },
			neonstate.OwnerUnwanted, neonstate.Changed},
		"unknown owner": {func(c *neondb.Content) { c.Shards[0].Pageserver = new(int64(9)) },
			neonstate.UnknownNode, neonstate.Changed},
		"too high": {func(c *neondb.Content) { c.Shards[0].Generation = new(int32(1<<31 - 70000)) },
			neonstate.GenerationTooHigh, neonstate.Wrong},
		"negative": {func(c *neondb.Content) { c.Shards[0].Generation = new(int32(-1)) },
			neonstate.BadRow, neonstate.Wrong},
		"safekeeper policy": {func(c *neondb.Content) { c.Safekeepers[0].Scheduling = "x" },
			neonstate.BadRow, neonstate.Wrong},
		"unknown safekeeper": {func(c *neondb.Content) { c.Timelines[0].Set[0] = 9 },
			neonstate.UnknownSafekeeper, neonstate.Wrong},
		"member twice": {func(c *neondb.Content) { c.Timelines[0].Set[0] = 2 },
			neonstate.BadTimeline, neonstate.Wrong},
		"joint from nowhere": {func(c *neondb.Content) {
			c.Timelines[0].Set, c.Timelines[0].NewSet = nil, []int64{1}
		}, neonstate.BadTimeline, neonstate.Wrong},
		"told too much": {func(c *neondb.Content) { c.Timelines[0].ComputeNotified = 7 },
			neonstate.BadTimeline, neonstate.Changed},
		"no timeline generation": {func(c *neondb.Content) { c.Timelines[0].Generation = 0 },
			neonstate.BadTimeline, neonstate.Wrong},
		"orphan": {func(c *neondb.Content) { c.Timelines[0].Tenant = tenantB },
			neonstate.OrphanTimeline, neonstate.Changed},
		"deleted and owed by nobody": {func(c *neondb.Content) {
			c.Timelines[0].DeletedAt = new(time.Now())
		}, neonstate.DeletedTimeline, neonstate.Changed},
		"stale exclude": {func(c *neondb.Content) { c.Ops = ops("exclude", 1, timelineA) },
			neonstate.StaleOperation, neonstate.Left},
		"stale pull": {func(c *neondb.Content) { c.Ops = ops("pull", 2, timelineA) },
			neonstate.StaleOperation, neonstate.Left},
		"pull of all": {func(c *neondb.Content) { c.Ops = ops("pull", 1, "") },
			neonstate.BadRow, neonstate.Wrong},
		"unknown kind": {func(c *neondb.Content) { c.Ops = ops("push", 1, timelineA) },
			neonstate.BadRow, neonstate.Wrong},
		"delete of what lives": {func(c *neondb.Content) { c.Ops = ops("delete", 1, timelineA) },
			neonstate.StaleOperation, neonstate.Left},
		"import": {func(c *neondb.Content) {
			c.Imports = []neondb.ImportRow{
				{Tenant: tenantA, Timeline: timelineA, Statuses: `{"0001":"Done"}`},
			}
		}, neonstate.BadImport, neonstate.Wrong},
		"import of nobody": {func(c *neondb.Content) {
			c.Imports = []neondb.ImportRow{
				{Tenant: tenantB, Timeline: timelineA, Statuses: `{"0000":"Done"}`},
			}
		}, neonstate.BadImport, neonstate.Wrong},
	} {
		c := plain()
		test.spoil(c)
		in := fromRows(t, 0, c)
		found := false
		for _, f := range in.Findings {
			found = found || f.Code == test.code && f.Severity == test.severity
		}
		if !found {
			t.Errorf("%s: found %v", name, in.Findings)
		}
		blocking := in.Findings.Blocking(nil)
		if test.severity == neonstate.Wrong && len(blocking) == 0 {
			t.Errorf("%s: does not block", name)
		}
		if left := in.Findings.Blocking(blocking); len(left) > 0 {
			t.Errorf("%s: blocks though accepted: %v", name, left)
		}
	}
}

func ops(kind string, generation int32, timeline string) []neondb.OpRow {
	return []neondb.OpRow{{
		Safekeeper: 1, Tenant: tenantA, Timeline: timeline, Generation: generation, Kind: kind,
	}}
}

// TestAnOlderCopyIsSeenByWhatIsServed lists tenants that the database does not have.
func TestAnOlderCopyIsSeenByWhatIsServed(t *testing.T) {
	id, _ := neon.ParseTenantID(tenantB)
	for mode, code := range map[neon.LocationMode]neonstate.Code{
		neon.AttachedSingle: neonstate.AttachedStranger,
		neon.AttachedMulti:  neonstate.AttachedStranger,
		neon.AttachedStale:  neonstate.AttachedStranger,
		neon.Secondary:      neonstate.NotWanted,
	} {
		seen := neonstate.Seen{
			1: nil, 2: {{Shard: neon.Unsharded(id)}},
			3: {{Shard: neon.Unsharded(id), Config: &neon.LocationConfig{Mode: mode}}},
		}
		in, err := neonstate.FromRows(plain(), seen, "origin")
		if err != nil {
			t.Fatal(err)
		}
		blocks := len(in.Findings.Blocking(nil)) > 0
		if in.Findings.Count(code) != 1 || blocks != (code == neonstate.AttachedStranger) {
			t.Errorf("%s: found %v", mode, in.Findings)
		}
		if left := in.Findings.Blocking([]neonstate.Code{code}); len(left) > 0 {
			t.Errorf("%s: blocks though accepted: %v", mode, left)
		}
	}
}

// TestNumbersThatCannotBeCountedAreNotAccepted: the shard would begin below what was issued.
func TestNumbersThatCannotBeCountedAreNotAccepted(t *testing.T) {
	id, _ := neon.ParseTenantID(tenantA)
	in, err := neonstate.FromRows(plain(), neonstate.Seen{1: {{
		Shard: neon.Unsharded(id), Config: &neon.LocationConfig{
			Mode: neon.AttachedSingle, Generation: new(neon.Generation(1<<31 - 5)),
		},
	}}}, "origin")
	if err != nil {
		t.Fatal(err)
	}
	if b := in.Findings.Blocking(in.Findings.Blocking(nil)); len(b) != 1 ||
		b[0] != neonstate.Exhausted {
		t.Errorf("blocking though accepted: %v", b)
	}
}

// TestSecondaryOfAStrangerIsNotTaken: the old controller can name a pageserver without a row.
func TestSecondaryOfAStrangerIsNotTaken(t *testing.T) {
	id, _ := neon.ParseTenantID(tenantA)
	in, err := neonstate.FromRows(plain(), neonstate.Seen{9: {{
		Shard: neon.Unsharded(id), Config: &neon.LocationConfig{Mode: neon.Secondary},
	}}}, "origin")
	if err != nil {
		t.Fatal(err)
	}
	if sh, _ := in.State.Shard(neon.Unsharded(id)); len(sh.Secondary) > 0 {
		t.Errorf("secondaries %v", sh.Secondary)
	}
}

func TestSplitIsUndone(t *testing.T) {
	c := plain()
	c.Shards = append(c.Shards, shardRow(tenantA, 0, 2), shardRow(tenantA, 1, 2))
	in := fromRows(t, 0, c)
	id, _ := neon.ParseTenantID(tenantA)
	sp, ok := in.State.Split(id)
	if !ok || sp.Phase != fsm.SplitAborting || sp.Count != 2 || len(sp.Parents) != 1 {
		t.Errorf("the split is %+v", sp)
	}
	if tenant, _ := in.State.Tenant(id); tenant.Count != 0 || in.State.ShardCount() != 1 {
		t.Errorf("the tenant has %d shards", in.State.ShardCount())
	}
}

func TestMixedTenantIsNotTakenAway(t *testing.T) {
	c := plain()
	a, b := shardRow(tenantA, 0, 2), shardRow(tenantA, 1, 2)
	a.Placement, a.Pageserver = `"Detached"`, nil
	c.Shards = []neondb.ShardRow{a, b}
	in := fromRows(t, 0, c)
	id, _ := neon.ParseTenantID(tenantA)
	if tenant, _ := in.State.Tenant(id); tenant.Policy != neon.Attached(1) {
		t.Errorf("placed %s", tenant.Policy)
	}
}

// TestNewTenantsCountFromAboveAll creates a tenant after the move under an id that the old
// controller may have used.
func TestNewTenantsCountFromAboveAll(t *testing.T) {
	c := plain()
	c.Shards[0].Generation = new(int32(300_000))
	s, err := fsm.Recover(fromRows(t, 0, c).State, "new")
	if err != nil {
		t.Fatal(err)
	}
	id, _ := neon.ParseTenantID(tenantB)
	s, r := fsm.Apply(s, 9, fsm.RequestID{}, fsm.CreateTenant{
		ID: id, Stripe: 2048, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{{}},
	})
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	if sh, _ := s.Shard(neon.Unsharded(id)); sh.Generation <= 300_000+neondb.Jump {
		t.Errorf("it counts from %d", sh.Generation)
	}
}

func TestWhatIsLostOnTheWayOut(t *testing.T) {
	s, err := fsm.FromRecords(fsm.Records{
		Nodes: []fsm.Node{{
			ID: 1, Scheduling: neon.SchedulingDraining, Availability: neon.NodeActive,
			Operation: fsm.Operation{Kind: fsm.OperationDrain, Prior: neon.SchedulingActive},
		}},
		Tenants: []fsm.Tenant{{
			ID: neon.TenantID{1}, Stripe: 1, Scheduling: neon.ShardActive, Deleting: true,
		}},
		Shards: []fsm.Shard{{
			ID: neon.Unsharded(neon.TenantID{1}), Generation: 1<<31 - 1, HasGeneration: true,
			PreferredNode: 1,
		}},
		Safekeepers: []fsm.Safekeeper{{
			ID: 1, Gone: true, Scheduling: neon.SafekeeperDecomissioned,
		}},
		Imports: []fsm.Import{{
			Tenant: neon.TenantID{1}, Shards: []neon.ShardImport{{State: neon.ShardImportDone}},
			Finished: true,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, found, err := neonstate.ToRows(s, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []neonstate.Code{
		neonstate.NodeOperation, neonstate.TenantDeleting, neonstate.Exhausted,
		neonstate.MoveUnderWay, neonstate.SafekeeperGone, neonstate.ImportFinished,
	} {
		if found.Count(code) != 1 {
			t.Errorf("%s is not told: %v", code, found)
		}
	}
	if b := found.Blocking(nil); len(b) != 2 {
		t.Errorf("blocking: %v", b)
	}
	if b := found.Blocking(found.Blocking(nil)); len(b) != 1 || b[0] != neonstate.Exhausted {
		t.Errorf("blocking though accepted: %v", b)
	}
}

func TestEarlierSpellings(t *testing.T) {
	c := plain()
	c.Shards[0].Placement = `{"Double": 1}`
	c.Safekeepers[0].Scheduling = "disabled"
	one := shardRow(tenantB, 0, 0)
	one.Placement = `"Single"`
	c.Shards = append(c.Shards, one)
	in := fromRows(t, 0, c)
	a, _ := neon.ParseTenantID(tenantA)
	b, _ := neon.ParseTenantID(tenantB)
	first, _ := in.State.Tenant(a)
	second, _ := in.State.Tenant(b)
	k, _ := in.State.Safekeeper(1)
	if first.Policy != neon.Attached(1) || second.Policy != neon.Attached(0) ||
		k.Scheduling != neon.SafekeeperPause {
		t.Errorf("%s, %s, %s", first.Policy, second.Policy, k.Scheduling)
	}
}
