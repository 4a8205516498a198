package fsm

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
)

// The universe of the random tests is small, so that commands meet.
const (
	modelNodes   = 5
	modelTenants = 4
)

func modelTenant(n int) neon.TenantID { return neon.TenantID{15: byte(n)} }

// machine applies random commands and holds them against what must be true of any
// history; it knows nothing about the state but what results say.
type machine struct {
	s     *State
	index uint64

	// issued is every number ever granted, with its node: over deletions,
	// restores and recoveries. highest is the largest of each shard.
	issued  map[neon.ShardID]map[neon.Generation]neon.NodeID
	highest map[neon.ShardID]neon.Generation

	// configured is every configuration that a timeline ever had since it was
	// created, as words, by generation.
	configured map[timelineKey]map[neon.SafekeeperGeneration]string
	remote     remoteModel

	named  []named // commands that were applied under a request id
	kept   []kept  // older states, to see that they do not change
	backup *State  // an earlier state to recover from
}

type named struct {
	id    RequestID
	c     Command
	index uint64
}

type kept struct {
	s    *State
	hash string
}

func newMachine() *machine {
	return &machine{
		s: NewState(), issued: map[neon.ShardID]map[neon.Generation]neon.NodeID{},
		highest:    map[neon.ShardID]neon.Generation{},
		configured: map[timelineKey]map[neon.SafekeeperGeneration]string{},
	}
}

// apply applies one command and checks everything that holds for all of them.
func (m *machine) apply(t *rapid.T, id RequestID, c Command) Result {
	m.index++
	before := m.s
	after, r := Apply(before, m.index, id, c)
	if err := Check(after); err != nil {
		t.Fatalf("%#v leaves a broken state: %v", c, err)
	}
	if (r.Err != nil || r.Duplicate) && !sameRecords(before, after) {
		t.Fatalf("%#v was answered by %+v, and yet something changed", c, r)
	}
	if r.Err != nil && (len(r.Grants) > 0 || len(r.ReAttached) > 0) {
		t.Fatalf("%#v was refused and yet granted: %+v", c, r)
	}
	m.grants(t, before, after, r.Grants)
	m.entered(t, before, after)
	m.arrivals(t, before, after, c)
	m.numbered(t, before, c, r)
	m.configurations(t, after)
	m.imports(t, before, after)
	m.remote.check(t, before, after, c, r)
	if !r.Duplicate {
		m.current(t, before, c, r)
	}
	for _, id := range r.Refused {
		was, _ := before.Shard(id)
		is, _ := after.Shard(id)
		if !sameShard(was, is) && !changedByOther(c, id) {
			t.Fatalf("%s was refused and yet changed from %+v to %+v", id, was, is)
		}
	}
	m.s = after
	return r
}

// grants checks the numbers that were issued, and that there are no others.
func (m *machine) grants(t *rapid.T, before, after *State, grants []Grant) {
	granted := map[neon.ShardID]int{}
	for _, g := range grants {
		granted[g.Shard]++
		if m.issued[g.Shard] == nil {
			m.issued[g.Shard] = map[neon.Generation]neon.NodeID{}
		}
		if node, twice := m.issued[g.Shard][g.Generation]; twice {
			t.Fatalf("%s: generation %d was issued to node %d and again to %d", g.Shard,
				g.Generation, node, g.Node)
		}
		if g.Generation <= m.highest[g.Shard] {
			t.Fatalf("%s: generation fell from %d to %d", g.Shard, m.highest[g.Shard], g.Generation)
		}
		m.issued[g.Shard][g.Generation], m.highest[g.Shard] = g.Node, g.Generation
	}
	after.shards.Scan(func(sh Shard) bool {
		was, had := before.Shard(sh.ID)
		if had && sh.Generation < was.Generation {
			t.Fatalf("%s: generation fell from %d to %d", sh.ID, was.Generation, sh.Generation)
		}
		if sh.Generation < m.highest[sh.ID] {
			t.Fatalf("%s counts from %d, but %d was issued", sh.ID, sh.Generation, m.highest[sh.ID])
		}
		if sh.GenNode != 0 && m.issued[sh.ID][sh.Generation] != sh.GenNode && m.s.Epoch == 0 {
			t.Fatalf("%s: generation %d of node %d was never granted to it", sh.ID, sh.Generation,
				sh.GenNode)
		}
		if had && sh.GenNode != 0 && granted[sh.ID] == 0 &&
			(sh.Generation != was.Generation || sh.GenNode != was.GenNode) {
			t.Fatalf("%s: %d@%d became %d@%d without a grant", sh.ID, was.Generation, was.GenNode,
				sh.Generation, sh.GenNode)
		}
		return true
	})
}

// entered demands that what comes from outside leaves numbers.
func (m *machine) entered(t *rapid.T, before, after *State) {
	after.shards.Scan(func(sh Shard) bool {
		was, had := before.Shard(sh.ID)
		_, split := before.Split(sh.ID.Tenant)
		most := neon.MaxGeneration
		switch {
		case !before.bounded(), had && was.HasGeneration == sh.HasGeneration, !had && split:
			return true
		case had:
			most = max(most, was.Generation) // recoveries raise it
		}
		if sh.Generation > most+1 { // one is issued in the same entry
			t.Fatalf("%s begins in generation %d", sh.ID, sh.Generation)
		}
		return true
	})
}

// current demands that nothing was accepted that was decided on something older.
func (m *machine) current(t *rapid.T, before *State, c Command, r Result) {
	stale := func(id neon.ShardID, is bool) {
		if is && !slices.Contains(r.Refused, id) {
			t.Fatalf("%#v has a stale item for %s, and only %v were refused", c, id, r.Refused)
		}
	}
	switch c := c.(type) {
	case SetIntents:
		for _, in := range c.Intents {
			sh, ok := before.Shard(in.Shard)
			stale(in.Shard, !ok || sh.Sequence != in.Sequence ||
				before.Splitting(in.Shard.Tenant) || baseless(before, in.Basis, sh))
		}
	case IssueGenerations:
		for _, it := range c.Items {
			sh, ok := before.Shard(it.Shard)
			stale(it.Shard, !ok || sh.Attached != it.Node || sh.Generation != it.Generation ||
				before.Splitting(it.Shard.Tenant) || baseless(before, it.Basis, sh))
		}
	case EndNodeOperation:
		if n, _ := before.Node(c.Node); r.Err == nil &&
			(n.Operation.Begun != c.Begun || n.Operation.Kind == OperationNone) {
			t.Fatalf("%#v was accepted for %+v", c, n)
		}
	case UpdateTenant:
		tenant, _ := before.Tenant(c.ID)
		if r.Err == nil && tenant.Sequence != c.Sequence {
			t.Fatalf("%#v was accepted for %+v", c, tenant)
		}
		for _, in := range c.Intents {
			if sh, _ := before.Shard(in.Shard); r.Err == nil &&
				(sh.Sequence != in.Sequence || baseless(before, in.Basis, sh)) {
				t.Fatalf("%#v was accepted for %+v", c, sh)
			}
		}
	}
}

// sameRecords compares two states but for the index.
func sameRecords(a, b *State) bool {
	c := *a
	c.Index = b.Index
	return c.Hash() == b.Hash()
}

func sameShard(a, b Shard) bool {
	return bytes.Equal(appendShard(nil, &a), appendShard(nil, &b))
}

// changedByOther reports whether a batch has several items for a shard, so that it
// may be refused for one and changed by another.
func changedByOther(c Command, id neon.ShardID) bool {
	n := 0
	switch c := c.(type) {
	case SetIntents:
		for _, in := range c.Intents {
			if in.Shard == id {
				n++
			}
		}
	case IssueGenerations:
		for _, it := range c.Items {
			if it.Shard == id {
				n++
			}
		}
	}
	return n > 1
}

var (
	drawNode = rapid.Map(rapid.IntRange(0, modelNodes+1),
		func(n int) neon.NodeID { return neon.NodeID(n) })
	drawTenant = rapid.Map(rapid.IntRange(1, modelTenants), modelTenant)
	drawCount  = rapid.SampledFrom([]neon.ShardCount{0, 1, 2, 4})
	drawZone   = rapid.Map(rapid.SampledFrom([]string{"", "a", "b", "a-very-long-zone"}),
		neon.MakeAZ)
	drawPolicy = rapid.SampledFrom([]neon.Placement{
		neon.Attached(0), neon.Attached(1), neon.Attached(2), {Kind: neon.PlaceSecondary}, {},
		{Kind: 3},
	})
	drawScheduling = rapid.SampledFrom([]neon.ShardScheduling{
		neon.ShardActive, neon.ShardActive, neon.ShardPause, neon.ShardStop, neon.ShardEssential,
		"nonsense",
	})
	drawVerdict = rapid.SampledFrom([]neon.NodeAvailability{
		neon.NodeActive, neon.NodeOffline, neon.NodeWarmingUp, "nonsense",
	})
	drawWish = rapid.SampledFrom([]neon.NodeScheduling{
		neon.SchedulingActive, neon.SchedulingFilling, neon.SchedulingPause,
		neon.SchedulingPauseForRestart,
		neon.SchedulingDraining, neon.SchedulingDeleting, "nonsense",
	})
	drawGeneration = rapid.SampledFrom([]neon.Generation{
		0, 0, 0, 1, 7, neon.MaxGeneration, neon.MaxGeneration + 1, math.MaxUint32 - 1,
		math.MaxUint32,
	})
)

// drawAt is mostly no time, which the first level knows.
var drawAt = rapid.SampledFrom([]int64{0, 0, 0, 1700000000000, -1})

// left is mostly nothing.
func (m *machine) left(t *rapid.T) (l Left) {
	if rapid.IntRange(0, 3).Draw(t, "left") == 0 {
		l.Count = rapid.IntRange(0, 2).Draw(t, "count")
		l.Named = []LeftShard{{Shard: m.anyShard(t), Why: "\xff"}}
	}
	return l
}

// sequence is mostly the current one, sometimes an older or any other.
func sequence(t *rapid.T, current uint64) uint64 {
	if rapid.IntRange(0, 3).Draw(t, "stale") > 0 {
		return current
	}
	return rapid.Uint64Range(0, current+1).Draw(t, "sequence")
}

func drawNodes(t *rapid.T, most int) []neon.NodeID {
	return rapid.SliceOfN(drawNode, 0, most).Draw(t, "nodes")
}

// anyShard is mostly one that exists.
func (m *machine) anyShard(t *rapid.T) neon.ShardID {
	if m.s.ShardCount() > 0 && rapid.IntRange(0, 7).Draw(t, "unknown shard") > 0 {
		at := rapid.IntRange(0, m.s.ShardCount()-1).Draw(t, "shard")
		sh, _ := m.s.shards.tree.GetAt(at)
		return sh.key
	}
	return rapid.SampledFrom(neon.ShardIDs(drawTenant.Draw(t, "tenant"),
		drawCount.Draw(t, "count"))).Draw(t, "shard")
}

func (m *machine) intent(t *rapid.T, id neon.ShardID) Intent {
	sh, _ := m.s.Shard(id)
	return Intent{
		Shard: id, Sequence: sequence(t, sh.Sequence), Attached: drawNode.Draw(t, "attached"),
		Secondary:     drawNodes(t, 2),
		PreferredNode: drawNode.Draw(t, "preferred"), Issue: rapid.Bool().Draw(t, "issue"),
		Basis:    m.basis(t, sh),
		Insisted: m.s.KnowsBasis() && rapid.Bool().Draw(t, "insisted"),
		At:       rapid.Int64Range(-1, 5).Draw(t, "at"),
	}
}

func (m *machine) intents(t *rapid.T, most int) []Intent {
	one := func(t *rapid.T) Intent { return m.intent(t, m.anyShard(t)) }
	return rapid.SliceOfN(rapid.Custom(one), 0, most).Draw(t, "intents")
}

func (m *machine) noteSilence(t *rapid.T) Command {
	id := drawNode.Draw(t, "node")
	n, _ := m.s.Node(id)
	return NoteSilence{Nodes: []Silence{{
		Node: id, Incarnation: n.Incarnation + uint64(rapid.IntRange(0, 1).Draw(t, "restarted")),
		Since: rapid.Int64Range(-1, 2).Draw(t, "since"),
	}}}
}

func (m *machine) createTenant(t *rapid.T) Command {
	c := CreateTenant{
		ID: drawTenant.Draw(t, "tenant"), Count: drawCount.Draw(t, "count"),
		Stripe: neon.DefaultStripeSize,
		Policy: drawPolicy.Draw(t, "policy"), Scheduling: drawScheduling.Draw(t, "scheduling"),
		Generation:   drawGeneration.Draw(t, "generation"),
		NoGeneration: rapid.IntRange(0, 4).Draw(t, "no generation") == 0,
		At:           rapid.Int64().Draw(t, "at"),
	}
	for range c.Count.Shards() {
		c.Shards = append(c.Shards, NewShard{
			Attached: drawNode.Draw(t, "attached"), Secondary: drawNodes(t, 1),
			PreferredAZ: drawZone.Draw(t, "zone"),
		})
	}
	if rapid.IntRange(0, 9).Draw(t, "wrong number") == 0 {
		c.Shards = append(c.Shards, NewShard{})
	}
	return c
}

func (m *machine) updateTenant(t *rapid.T) Command {
	id := drawTenant.Draw(t, "tenant")
	tenant, _ := m.s.Tenant(id)
	c := UpdateTenant{ID: id, Sequence: sequence(t, tenant.Sequence)}
	if rapid.Bool().Draw(t, "with policy") {
		c.Policy = new(drawPolicy.Draw(t, "policy"))
	}
	if rapid.Bool().Draw(t, "with scheduling") {
		c.Scheduling = new(drawScheduling.Draw(t, "scheduling"))
	}
	if rapid.Bool().Draw(t, "with config") {
		config, err := neon.ParseTenantConfig(fmt.Appendf(nil, `{"gc_horizon":%d}`, m.index),
			neon.RejectUnknown)
		if err != nil {
			t.Fatal(err)
		}
		c.Config = &config
	}
	if rapid.Bool().Draw(t, "with generation") {
		c.Generation = new(drawGeneration.Draw(t, "generation"))
	}
	if rapid.Bool().Draw(t, "with intents") {
		for sh := range m.s.TenantShards(id) {
			c.Intents = append(c.Intents, m.intent(t, sh.ID))
		}
	}
	return c
}

// command draws any command.
func (m *machine) command(t *rapid.T) Command {
	if rapid.IntRange(0, 3).Draw(t, "safekeeping") == 0 {
		return m.safekeeping(t)
	}
	if rapid.IntRange(0, 7).Draw(t, "by hand") == 0 {
		return m.unmanagedCommand(t)
	}
	if rapid.IntRange(0, 5).Draw(t, "timeline work") == 0 {
		return m.timelineWork(t)
	}
	if rapid.IntRange(0, 31).Draw(t, "upgrade") == 0 {
		return SetLevel{Level: rapid.Uint64Range(0, Level+1).Draw(t, "level")}
	}
	switch rapid.IntRange(0, 23).Draw(t, "command") {
	case 0:
		return SetCluster{ID: rapid.SampledFrom([]string{"one", "two"}).Draw(t, "cluster")}
	case 1:
		return SetLeader{Leader{ServerID: "a", Term: rapid.Uint64Range(0, 9).Draw(t, "term")}}
	case 2:
		return RegisterNode{ID: drawNode.Draw(t, "node"), AZ: drawZone.Draw(t, "zone"),
			Addr: NodeAddr{
				HTTPHost:  rapid.SampledFrom([]string{"ps", "ps2"}).Draw(t, "host"),
				HTTPSPort: uint16(rapid.IntRange(0, 1).Draw(t, "port")),
			}}
	case 3:
		return SetNodeScheduling{
			Node: drawNode.Draw(t, "node"), Scheduling: drawWish.Draw(t, "policy"),
		}
	case 4:
		if rapid.Bool().Draw(t, "silence") {
			return m.noteSilence(t)
		}
		return SetNodeAvailability{Verdicts: []Verdict{{
			Node: drawNode.Draw(t, "node"), To: drawVerdict.Draw(t, "to"),
			From: rapid.SampledFrom([]neon.NodeAvailability{"", neon.NodeActive}).Draw(t, "from"),
		}}}
	case 5:
		return ReAttach{Node: drawNode.Draw(t, "node")}
	case 6, 7:
		return m.createTenant(t)
	case 8, 9:
		return m.updateTenant(t)
	case 10:
		return BeginDeleteTenant{ID: drawTenant.Draw(t, "tenant")}
	case 11:
		return FinishDeleteTenant{ID: drawTenant.Draw(t, "tenant")}
	case 12:
		sh, _ := m.s.Shard(m.anyShard(t))
		return AckNotifications{Acks: []Ack{{
			Shard: sh.ID,
			Node:  rapid.SampledFrom([]neon.NodeID{sh.GenNode, sh.Attached, 1}).Draw(t, "node"),
		}}}
	case 13:
		return IssueGenerations{Items: m.issues(t)}
	case 14:
		n, _ := m.s.Node(drawNode.Draw(t, "node"))
		return BeginNodeOperation{
			Node: n.ID, Kind: OperationKind(rapid.IntRange(0, 4).Draw(t, "kind")),
			Force:     rapid.IntRange(0, 3).Draw(t, "force") == 0,
			Exclusive: rapid.Bool().Draw(t, "alone"),
			At:        drawAt.Draw(t, "at"),
			Prior: rapid.SampledFrom([]neon.NodeScheduling{
				n.Scheduling, n.Scheduling, neon.SchedulingActive,
			}).Draw(t, "prior"),
		}
	case 15:
		n, _ := m.s.Node(drawNode.Draw(t, "node"))
		if c := m.note(t, &n); c != nil {
			return c
		}
		return EndNodeOperation{
			Node: n.ID, Begun: sequence(t, n.Operation.Begun),
			Ending: Ending(rapid.IntRange(0, 4).Draw(t, "ending")),
			At:     drawAt.Draw(t, "at"), Left: m.left(t),
		}
	case 16:
		n, _ := m.s.Node(drawNode.Draw(t, "node"))
		return DeleteNode{
			Node: n.ID, Begun: sequence(t, n.Operation.Begun), At: drawAt.Draw(t, "at"),
			Left: m.left(t),
		}
	case 17:
		return ForgetTombstone{Node: drawNode.Draw(t, "node")}
	case 18, 19:
		return m.beginSplit(t)
	case 20, 21:
		return m.moveSplit(t)
	}
	return SetIntents{Intents: m.intents(t, 3)}
}

// restored writes a snapshot, reads it and demands the same state and bytes.
func restored(t failer, s *State) *State {
	t.Helper()
	data := snapshotOf(t, s)
	got, err := ReadSnapshot(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("own snapshot is refused: %v", err)
	}
	if got.Hash() != s.Hash() {
		t.Fatalf("a restored state differs:\n%s\nnot\n%s", dump(got), dump(s))
	}
	if got.Digest() != s.Digest() {
		t.Fatalf("a restored state has another digest")
	}
	if !bytes.Equal(snapshotOf(t, got), data) {
		t.Fatalf("the snapshot of a restored state differs")
	}
	return got
}

func snapshotOf(t failer, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := SnapshotWriter{s}.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d of %d bytes: %v", n, b.Len(), err)
	}
	return b.Bytes()
}

// failer is what tests, properties, fuzzing and benchmarks have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// dump prints every record of a state in words that do not depend on any codec.
func dump(s *State) string {
	b := fmt.Appendf(nil, "index %d cluster %q epoch %d leader %+v level %d\n", s.Index,
		s.ClusterID, s.Epoch, s.Leader, s.AgreedLevel())
	for _, n := range s.nodes {
		b = fmt.Appendf(b, "node %d %+v zone=%s %s %s tombstone=%v incarnation=%d sequence=%d %+v",
			n.ID, n.Addr, n.AZ, n.Scheduling, n.Availability, n.Tombstone, n.Incarnation,
			n.Sequence, s.Counts(n.ID))
		if op := n.Operation; op.Kind != OperationNone {
			b = fmt.Appendf(b, " %s force=%v prior=%s begun=%d total=%d", op.Kind, op.Force,
				op.Prior, op.Begun, op.Total)
		}
		b = append(b, '\n')
	}
	for t := range s.TenantsFrom(neon.TenantID{}) {
		b = fmt.Appendf(b, "tenant %s count=%d stripe=%d %s %s config=%s deleting=%v sequence=%d\n",
			t.ID, t.Count, t.Stripe, t.Policy, t.Scheduling, t.Config.JSON(), t.Deleting,
			t.Sequence)
		b = dumpRemote(b, t)
	}
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		if sh.PriorNode != 0 {
			b = fmt.Appendf(b, "before node %d, node %d had the number of\n", sh.GenNode,
				sh.PriorNode)
		}
		if sh.PlacedOn != 0 {
			b = fmt.Appendf(b, "placed on node %d at %d\n", sh.PlacedOn, sh.PlacedAt)
		}
		insisted := ""
		if sh.Insisted {
			insisted = "!"
		}
		b = fmt.Appendf(b,
			"shard %s generation=%d,%v@%d attached=%d secondary=%v preferred=%d%s,%s notified=%v told=%d byhand=%v unhealthy=%v scrubbed=%d sequence=%d\n",
			sh.ID, sh.Generation, sh.HasGeneration, sh.GenNode, sh.Attached, sh.Secondary,
			sh.PreferredNode, insisted, sh.PreferredAZ,
			sh.ComputeAcknowledged, sh.AcknowledgedNode, sh.Unmanaged, sh.Unhealthy, sh.ScrubbedAt,
			sh.Sequence)
	}
	for sp := range s.Splits() {
		b = fmt.Appendf(b,
			"split %s %s began=%d count=%d stripe=%d parents=%v leftovers=%v code=%q reason=%q\n",
			sp.Tenant, sp.Phase, sp.Began, sp.Count, sp.Stripe, sp.Parents, sp.Leftovers, sp.Code,
			sp.Reason)
	}
	b = dumpSafekeeping(b, s)
	b = dumpTravels(dumpWork(b, s), s)
	s.done.values(func(q request) bool {
		b = fmt.Appendf(b, "request %x kind=%d index=%d\n", q.id, q.kind, q.index)
		return true
	})
	s.deletedTenants.values(func(g tenantTombstone) bool {
		b = fmt.Appendf(b, "grave %s generation=%d\n", g.tenant, g.generation)
		return true
	})
	for o := range s.Outcomes() {
		b = fmt.Appendf(b, "outcome %+v\n", o)
	}
	return string(b)
}

// must applies a command that has to be accepted.
func must(t testing.TB, s *State, c Command) (*State, Result) {
	t.Helper()
	next, r := Apply(s, s.Index+1, RequestID{}, c)
	if r.Err != nil || len(r.Refused) > 0 {
		t.Fatalf("%#v was refused: %v %v", c, r.Err, r.Refused)
	}
	if err := Check(next); err != nil {
		t.Fatal(err)
	}
	return next, r
}

// small is a state with three active nodes and tenant 1 with two shards, attached
// on node 1 in generation 1, with secondaries on node 2.
func small(t testing.TB) *State {
	t.Helper()
	s, _ := must(t, NewState(), SetCluster{ID: "c"})
	for id := neon.NodeID(1); id <= 3; id++ {
		s, _ = must(t, s, RegisterNode{
			ID: id, Addr: NodeAddr{HTTPHost: "ps", HTTPPort: uint16(id)}, AZ: neon.MakeAZ("a"),
		})
		s, _ = must(t, s, SetNodeAvailability{Verdicts: []Verdict{{Node: id, To: neon.NodeActive}}})
	}
	on := NewShard{Attached: 1, Secondary: []neon.NodeID{2}, PreferredAZ: neon.MakeAZ("a")}
	s, _ = must(t, s, CreateTenant{
		ID: modelTenant(1), Count: 2, Stripe: neon.DefaultStripeSize, Policy: neon.Attached(1),
		Scheduling: neon.ShardActive,
		Shards:     []NewShard{on, on},
	})
	var items []Issue
	for _, id := range neon.ShardIDs(modelTenant(1), 2) {
		items = append(items, Issue{Shard: id, Node: 1})
	}
	s, _ = must(t, s, IssueGenerations{Items: items})
	return s
}

func shardsOf(
	s *State, tenant neon.TenantID,
) []Shard {
	return slices.Collect(s.TenantShards(tenant))
}
