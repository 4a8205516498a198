package plan

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
	"quorate/fsm"
)

// world is a model of one shard on a few pageservers, with what a leader has seen
// of it. It obeys the planner's steps as the executor and the log would, and
// fails when a step breaks a promise.
type world struct {
	t        *rapid.T
	tenant   fsm.Tenant
	shard    fsm.Shard
	down     map[neon.NodeID]bool
	sick     map[neon.NodeID]bool // everything that is sent to it fails
	silent   []neon.NodeID        // do not answer calls, as the leader knows
	failed   []neon.NodeID        // in this pass
	blame    map[neon.NodeID]int
	real     map[neon.NodeID]Conf
	known    map[neon.NodeID]bool
	met      map[neon.NodeID]bool // something was heard of them, or they were listed
	spoilt   map[neon.NodeID]bool // the last call to it failed
	owner    map[neon.Generation]neon.NodeID
	fresh    neon.Generation
	warm     neon.NodeID
	caught   neon.NodeID
	notified neon.NodeID
	hook     bool
}

const worldNodes = 4

func (w *world) scene() *Scene {
	sc := &Scene{
		Tenant: w.tenant, Shard: w.shard, Fresh: w.fresh, Warm: w.warm, CaughtUp: w.caught,
		Notifies: w.hook, Failed: w.failed, Silent: w.silent,
		Node: func(id neon.NodeID) *fsm.Node {
			a := neon.NodeActive
			if w.down[id] {
				a = neon.NodeOffline
			}
			return &fsm.Node{ID: id, Availability: a}
		},
		On: func(id neon.NodeID) Sight {
			if !w.known[id] {
				return Sight{Failed: w.spoilt[id]}
			}
			return Sight{Known: true, Conf: w.real[id], Failed: w.spoilt[id]}
		},
	}
	for id := neon.NodeID(1); id <= worldNodes; id++ {
		if w.met[id] && (!w.known[id] || w.real[id].Mode != "") {
			sc.Elsewhere = append(sc.Elsewhere, id)
		}
		if w.blame[id] >= 3 {
			sc.Hopeless = append(sc.Hopeless, id)
		}
	}
	return sc
}

// obey carries out one step and checks it against the promises.
func (w *world) obey(step Step) {
	if step.Node != 0 && w.down[step.Node] {
		w.t.Fatalf("%s for node %d, which is down", step.Kind, step.Node)
	}
	w.waits(step)
	if culprit := step.Node; w.sick[step.Node] || step.Kind == CatchUp && w.sick[step.From] {
		if step.Kind == CatchUp {
			culprit = step.From
		}
		w.fail(step, culprit)
		return
	}
	switch step.Kind {
	case Look:
		if w.known[step.Node] {
			w.t.Fatalf("looks at node %d, which is known", step.Node)
		}
		w.known[step.Node], w.met[step.Node] = true, true
	case Issue:
		w.issue(step.Node)
	case Warm:
		w.warm = step.Node
	case CatchUp:
		w.caught = step.Node
	case Notify:
		w.notify()
	case Put:
		w.put(step)
	case Move:
		if at := w.real[step.Node]; at.Mode != neon.Secondary || w.warm != step.Node {
			w.t.Fatalf("moves to node %d, which is %v and not warm", step.Node, at)
		}
		w.shard.Attached, w.shard.Secondary, w.shard.PreferredNode = step.Node, []neon.NodeID{
			w.shard.Attached,
		}, 0
	}
}

// waits demands that a shard that is to be attached, or of which compute is to be told,
// waits for no node that does not answer and that compute does not read from.
func (w *world) waits(step Step) {
	at := w.real[w.shard.Attached]
	done := at.Mode == neon.AttachedSingle && at.Generation == w.shard.Generation &&
		w.known[w.shard.Attached] && w.shard.ComputeAcknowledged
	if w.hook && !done && step.Node != w.shard.Attached && slices.Contains(w.silent, step.Node) &&
		step.Node != w.shard.AcknowledgedNode {
		w.t.Fatalf("%s for node %d, which does not answer, before compute is told", step.Kind,
			step.Node)
	}
}

// answersAgain ends the silence of a destination that something waits for. Meanwhile
// another node that can be reached has the shard.
func (w *world) answersAgain(n neon.NodeID) bool {
	at := slices.Index(w.silent, n)
	if at < 0 {
		return false
	}
	served := false
	for id, c := range w.real {
		served = served || id != n && c.Mode.Attached() && !w.down[id]
	}
	if !served {
		w.t.Fatalf("waits for node %d, which does not answer, and nothing serves", n)
	}
	w.silent = slices.Delete(w.silent, at, at+1)
	return true
}

// fail is a call that failed and may have had its effect.
func (w *world) fail(step Step, culprit neon.NodeID) {
	if step.Kind == Put {
		if rapid.Bool().Draw(w.t, "in effect") {
			w.put(step)
		}
		w.known[step.Node], w.met[step.Node], w.spoilt[step.Node] = false, true, true
	}
	w.blame[culprit]++
	if step.Optional {
		w.failed = append(w.failed, culprit)
	} else {
		w.failed = nil // the pass is over
	}
}

func (w *world) issue(n neon.NodeID) {
	if w.shard.Attached != n {
		w.t.Fatalf("issues a generation for node %d, the intent is %d", n, w.shard.Attached)
	}
	if w.shard.GenNode == n && !w.known[n] && w.fresh != w.shard.Generation {
		w.t.Fatalf("spends a generation on merely not knowing node %d", n)
	}
	w.shard.Generation++
	w.owner[w.shard.Generation] = n
	if w.shard.GenNode != n {
		w.shard.PriorNode = w.shard.GenNode
		w.shard.GenNode, w.shard.ComputeAcknowledged = n, false
	}
	w.fresh, w.caught = w.shard.Generation, 0
}

func (w *world) notify() {
	at := w.real[w.shard.GenNode]
	if !at.Mode.Attached() || at.Generation != w.shard.Generation {
		w.t.Fatalf("tells compute of node %d, which is %v", w.shard.GenNode, at)
	}
	w.notified, w.shard.ComputeAcknowledged = w.shard.GenNode, true
	w.shard.AcknowledgedNode = w.shard.GenNode
}

func (w *world) put(step Step) {
	was := w.real[step.Node]
	if step.Conf.Mode.Attached() {
		g := step.Conf.Generation
		if step.Conf.Mode == neon.AttachedStale {
			if !was.Mode.Attached() || was.Generation != g {
				w.t.Fatalf("makes node %d stale in generation %s, it is %v", step.Node, g, was)
			}
		} else {
			if w.owner[g] != step.Node || g != w.shard.Generation {
				w.t.Fatalf("sends generation %s to node %d, it was issued to %d", g, step.Node,
					w.owner[g])
			}
			inPlace := was.Mode.Attached() && was.Generation == g && was.Mode != neon.AttachedStale
			if !inPlace && w.fresh != g {
				w.t.Fatalf("attaches node %d anew in the used generation %s", step.Node, g)
			}
			if step.Conf.Mode == neon.AttachedSingle && was.Mode != neon.AttachedSingle {
				w.alone(step.Node)
			}
		}
	} else if was.Mode.Attached() && w.shard.Attached != 0 {
		if w.real[w.shard.Attached].Generation != w.shard.Generation ||
			!w.real[w.shard.Attached].Mode.Attached() {
			w.t.Fatalf("takes node %d away before node %d is attached", step.Node, w.shard.Attached)
		}
		if w.hook && w.notified != w.shard.Attached {
			w.t.Fatalf("takes node %d away before compute was told", step.Node)
		}
	}
	if w.fresh == step.Conf.Generation {
		w.fresh = 0
	}
	if step.Conf.Mode == "" {
		delete(w.real, step.Node)
	} else {
		w.real[step.Node] = step.Conf
	}
	w.known[step.Node], w.met[step.Node], w.spoilt[step.Node] = true, true, false
}

// alone demands that a shard is attached nowhere else that can be reached, as far as the
// log says where: a node that has it alone may delete what another one reads.
func (w *world) alone(n neon.NodeID) {
	for _, o := range []neon.NodeID{w.shard.PriorNode, w.shard.AcknowledgedNode} {
		if o != 0 && o != n && w.real[o].Mode.Attached() && !w.down[o] && !w.sick[o] &&
			!slices.Contains(w.silent, o) {
			w.t.Fatalf("node %d gets it alone, and node %d has it as %v", n, o, w.real[o])
		}
	}
}

// list has the leader hear of all nodes, and reports whether that is new to it.
func (w *world) list() (news bool) {
	for id := neon.NodeID(1); id <= worldNodes; id++ {
		if !w.met[id] {
			w.met[id], w.known[id], news = true, true, true
		}
	}
	return news
}

func drawWorld(t *rapid.T) *world {
	w := &world{
		t: t, down: map[neon.NodeID]bool{}, sick: map[neon.NodeID]bool{},
		blame: map[neon.NodeID]int{}, real: map[neon.NodeID]Conf{}, known: map[neon.NodeID]bool{},
		spoilt: map[neon.NodeID]bool{}, met: map[neon.NodeID]bool{},
		owner: map[neon.Generation]neon.NodeID{}, hook: rapid.Bool().Draw(t, "hook"),
	}
	node := rapid.Custom(func(
		t *rapid.T,
	) neon.NodeID {
		return neon.NodeID(rapid.IntRange(1, worldNodes).Draw(t, "node"))
	})
	w.tenant = fsm.Tenant{Policy: neon.Attached(1), Scheduling: neon.ShardActive}
	w.shard = fsm.Shard{
		Generation:    neon.Generation(rapid.IntRange(1, 5).Draw(t, "generation")),
		HasGeneration: true,
		GenNode:       node.Draw(t, "owner"), Attached: node.Draw(t, "attached"),
	}
	w.owner[w.shard.Generation] = w.shard.GenNode
	if prior := node.Draw(t, "prior"); prior != w.shard.GenNode && w.shard.Generation > 1 {
		w.shard.PriorNode = prior
	}
	if n := node.Draw(t, "secondary"); n != w.shard.Attached {
		w.shard.Secondary = []neon.NodeID{n}
	}
	if rapid.Bool().Draw(t, "preferred") && len(w.shard.Secondary) > 0 {
		w.shard.PreferredNode = w.shard.Secondary[0]
	}
	if rapid.Bool().Draw(t, "told") {
		w.notified, w.shard.ComputeAcknowledged = w.shard.GenNode, true
	} else {
		w.notified = node.Draw(t, "told")
	}
	if w.hook {
		w.shard.AcknowledgedNode = w.notified
	}
	modes := []neon.LocationMode{
		"", neon.Secondary, neon.AttachedSingle, neon.AttachedMulti, neon.AttachedStale,
	}
	for id := neon.NodeID(1); id <= worldNodes; id++ {
		w.known[id] = rapid.Bool().Draw(t, "known")
		w.met[id] = w.known[id] || rapid.Bool().Draw(t, "met")
		w.spoilt[id] = rapid.Bool().Draw(t, "spoilt")
		w.down[id] = id != w.shard.Attached && rapid.IntRange(0, 3).Draw(t, "down") == 0
		w.sick[id] = id != w.shard.Attached && id != w.shard.PreferredNode &&
			rapid.IntRange(0, 3).Draw(t, "sick") == 0
		if rapid.IntRange(0, 3).Draw(t, "silent") == 0 {
			w.silent = append(w.silent, id)
		}
		mode := rapid.SampledFrom(modes).Draw(t, "mode")
		if mode == "" {
			continue
		}
		c := Conf{Mode: mode}
		if mode.Attached() {
			limit := int(w.shard.Generation)
			if w.shard.GenNode != id {
				limit-- // the newest number is held by no other node
			}
			c.Generation = neon.Generation(rapid.IntRange(0, limit).Draw(t, "held"))
		}
		w.real[id] = c
	}
	return w
}

// From any truth, and from any part of it seen, the planner reaches the intent in
// a few steps, and no step on the way breaks a promise. Losing all that was seen
// in the middle, as when the leader dies, changes nothing about that, and neither do
// nodes on which everything fails, unless it is the intended one.
func TestPlannerReachesIntentFromAnySight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		deaths := rapid.SliceOfN(rapid.IntRange(0, 12), 0, 2).Draw(t, "leader dies at")
		var trace []string
		for i := range 100 {
			if slices.Contains(deaths, i) {
				w.known, w.spoilt = map[neon.NodeID]bool{}, map[neon.NodeID]bool{}
				w.failed, w.blame, w.met = nil, map[neon.NodeID]int{}, map[neon.NodeID]bool{}
				w.fresh, w.warm, w.caught = 0, 0, 0
			}
			step := Next(w.scene())
			trace = append(trace,
				fmt.Sprintf("%s %d %s", step.Kind, step.Node, step.Conf.Mode))
			if step.Kind == Done && w.list() {
				continue
			}
			if step.Kind == Done {
				w.reached(trace)
				return
			}
			if step.Kind == Blocked && w.answersAgain(step.Node) {
				continue
			}
			if step.Kind == Blocked {
				t.Fatalf("blocked: %s\n%v", step.Why, trace)
			}
			w.obey(step)
		}
		t.Fatalf("does not come to an end:\n%v", trace)
	})
}

func (w *world) reached(trace []string) {
	at := w.real[w.shard.Attached]
	if at.Mode != neon.AttachedSingle || at.Generation != w.shard.Generation {
		w.t.Fatalf("node %d ends as %v, not attached in %s\n%v", w.shard.Attached, at,
			w.shard.Generation, trace)
	}
	if w.hook && w.notified != w.shard.Attached {
		w.t.Fatalf("compute ends at node %d\n%v", w.notified, trace)
	}
	if p := w.shard.PreferredNode; p != 0 && !w.down[p] {
		w.t.Fatalf("does not move to node %d\n%v", p, trace)
	}
	for id := neon.NodeID(1); id <= worldNodes; id++ {
		if w.down[id] || w.sick[id] || id == w.shard.Attached {
			continue
		}
		mode := w.real[id].Mode
		if want := w.shard.HasSecondary(id); want != (mode == neon.Secondary) ||
			!want && w.known[id] && mode != "" {
			w.t.Fatalf("node %d ends as %q, secondary wanted: %v\n%v", id, mode, want, trace)
		}
	}
}

// A shard that has no number left is never numbered, and what serves of it goes on
// serving. Everything else about it is done.
func TestPlannerDegradesNothingThatHasNoNumberLeft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		last := w.shard.Generation
		at := func(g neon.Generation) neon.Generation { return math.MaxUint32 - last + g }
		w.shard.Generation, w.owner[at(last)] = at(last), w.shard.GenNode
		for id, c := range w.real {
			if c.Mode.Attached() {
				c.Generation = at(c.Generation)
				w.real[id] = c
			}
		}
		for range 100 {
			step := Next(w.scene())
			switch {
			case step.Kind == Done, step.Kind == Blocked:
				return
			case step.Kind == Issue, step.Kind == Move,
				step.Kind == Put && step.Conf.Mode == neon.AttachedStale:
				t.Fatalf("%s %d %s", step.Kind, step.Node, step.Conf.Mode)
			}
			w.obey(step)
		}
		t.Fatal("does not come to an end")
	})
}

func TestPlannerFreezesAShardWhoseGenerationWasNeverIssued(t *testing.T) {
	w := &world{
		known:  map[neon.NodeID]bool{1: true, 2: true, 3: true, 4: true},
		met:    map[neon.NodeID]bool{1: true, 2: true, 3: true, 4: true},
		down:   map[neon.NodeID]bool{},
		real:   map[neon.NodeID]Conf{2: {Mode: neon.AttachedSingle, Generation: 9}},
		tenant: fsm.Tenant{Policy: neon.Attached(0), Scheduling: neon.ShardActive},
		shard:  fsm.Shard{Generation: 3, HasGeneration: true, GenNode: 1, Attached: 1},
	}
	if step := Next(w.scene()); step.Kind != Blocked || step.Node != 2 {
		t.Fatalf("step is %s on node %d", step.Kind, step.Node)
	}
}

func TestPlannerLeavesEverythingAloneWithoutAPlace(t *testing.T) {
	for _, policy := range []neon.Placement{neon.Attached(1), {Kind: neon.PlaceSecondary}} {
		w := &world{
			known:  map[neon.NodeID]bool{1: true, 2: true, 3: true, 4: true},
			met:    map[neon.NodeID]bool{1: true, 2: true, 3: true, 4: true},
			down:   map[neon.NodeID]bool{},
			real:   map[neon.NodeID]Conf{2: {Mode: neon.AttachedSingle, Generation: 1}},
			tenant: fsm.Tenant{Policy: policy, Scheduling: neon.ShardActive},
			shard:  fsm.Shard{Generation: 1, HasGeneration: true},
		}
		if step := Next(w.scene()); step.Kind != Blocked {
			t.Fatalf("%v: step is %s on node %d", policy, step.Kind, step.Node)
		}
	}
}

func TestPlannerMakesNoCallUnderStop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.tenant.Scheduling = neon.ShardStop
		if step := Next(w.scene()); step.Kind != Done {
			t.Fatalf("step is %s", step.Kind)
		}
	})
}

// TestHeatmapsFollowThePolicy: a tenant that wants a secondary uploads heatmaps
// also while it has none, as after a split.
func TestHeatmapsFollowThePolicy(t *testing.T) {
	sc := &Scene{Tenant: fsm.Tenant{Policy: neon.Attached(1)}, Shard: fsm.Shard{Attached: 1}}
	plain := &Scene{Tenant: fsm.Tenant{Policy: neon.Attached(0)}, Shard: fsm.Shard{Attached: 1}}
	if sc.locationConfig() == plain.locationConfig() {
		t.Error("no heatmaps for a tenant that has no secondary at the moment")
	}
	plain.Shard.Secondary = []neon.NodeID{2}
	if sc.locationConfig() != plain.locationConfig() {
		t.Error("no heatmaps for a secondary that is there for a move only")
	}
}

func TestConfsSurviveTheWire(t *testing.T) {
	id := neon.ShardID{Number: 1, Count: 2}
	for _, c := range []Conf{
		{Mode: neon.AttachedSingle, Generation: 7, Stripe: 2048},
		{Mode: neon.AttachedStale, Generation: 0, Stripe: 2048},
		{Mode: neon.Secondary, Stripe: 2048},
	} {
		w := c.LocationConfig(id)
		if got := ConfOf(w); *got != c {
			t.Errorf("%v comes back as %v", c, *got)
		}
		if (w.Generation != nil) != c.Mode.Attached() || w.ShardNumber != 1 || w.ShardCount != 2 {
			t.Errorf("%v is spelled %+v", c, w)
		}
	}
	if ConfOf(nil) != nil {
		t.Error("a location that is being changed is known")
	}
}

// TestNothingIsHandedOverByANodeThatIsDeletedByForce: its tombstone would end the
// calls, so it counts as one that cannot be reached.
func TestNothingIsHandedOverByANodeThatIsDeletedByForce(t *testing.T) {
	w := &world{
		known: map[neon.NodeID]bool{1: true, 2: true, 3: true, 4: true},
		down:  map[neon.NodeID]bool{},
		real: map[neon.NodeID]Conf{
			1: {Mode: neon.AttachedSingle, Generation: 3}, 2: {Mode: neon.Secondary},
		},
		tenant: fsm.Tenant{Policy: neon.Attached(0), Scheduling: neon.ShardActive},
		shard:  fsm.Shard{Generation: 3, HasGeneration: true, GenNode: 1, Attached: 2},
	}
	sc := w.scene()
	if step := Next(sc); step.Kind != Warm || step.From != 1 {
		t.Fatalf("a live migration begins with %s from node %d", step.Kind, step.From)
	}
	node := sc.Node
	sc.Node = func(id neon.NodeID) *fsm.Node {
		n := node(id)
		if id == 1 {
			n.Operation = fsm.Operation{Kind: fsm.OperationDelete, Force: true}
		}
		return n
	}
	if step := Next(sc); step.Kind != Issue || step.Node != 2 {
		t.Errorf("step is %s on node %d", step.Kind, step.Node)
	}
}

// The data of a deleted tenant is removed, and that of one that travels in time replaced.
func TestADeletionWaitsUntilNoNodeCanHaveTheShard(t *testing.T) {
	for name, sc := range map[string]*Scene{
		"deletion": {Tenant: fsm.Tenant{Deleting: true}}, "time travel": {Travels: true},
	} {
		t.Run(name, func(t *testing.T) { waitsUntilNoNodeCanHaveIt(t, sc) })
	}
}

func waitsUntilNoNodeCanHaveIt(t *testing.T, sc *Scene) {
	node := fsm.Node{ID: 2, Availability: neon.NodeActive}
	sc.Shard = fsm.Shard{Generation: 3, HasGeneration: true, GenNode: 1}
	sc.Node = func(id neon.NodeID) *fsm.Node {
		if id == 2 {
			return &node
		}
		return nil // it was deleted
	}
	sc.On = func(neon.NodeID) Sight { return Sight{} }
	sc.Elsewhere, sc.MayHave = []neon.NodeID{1, 2}, "node 3 was not listed yet"
	if step := Next(sc); step.Kind != Put || step.Node != 2 || step.Conf.Mode != "" {
		t.Fatalf("a location that may be there is not detached: %s on node %d", step.Kind, step.Node)
	}
	for _, block := range []func(){
		func() { node.Availability = neon.NodeOffline },
		func() { sc.MayHave, node.Availability = "", neon.NodeWarmingUp },
		func() {
			node.Availability = neon.NodeActive
			node.Operation = fsm.Operation{Kind: fsm.OperationDelete, Force: true}
		},
	} {
		if block(); Next(sc).Kind != Blocked {
			t.Errorf("the deletion goes on with node %+v", node)
		}
	}
	node = fsm.Node{ID: 2, Availability: neon.NodeOffline}
	if step := Next(sc); step.Kind != Done {
		t.Errorf("a node that is offline holds the deletion up: %s", step.Why)
	}
}
