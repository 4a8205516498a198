// Package plan has the planner of the reconciler: Next, a pure and total function
// from what is known of one shard to the one next step. It does nothing itself.
//
// There is no progress counter: for a live migration, Next names one step after
// another from what was seen of the two locations. A new leader, which has seen
// nothing yet, gets the step at which its predecessor stopped.
//
// The package has no clock and makes no calls. It knows nothing of queues, workers
// or the log; the reconciler fills in the Scene and executes the Step.
package plan

import (
	"fmt"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// Sight is what is known of one location.
type Sight struct {
	Known  bool // false: could be anything
	Conf   Conf // Mode "" when nothing is there
	Failed bool // the last call that was to change it failed, whatever was seen since
}

// Attached reports whether the location is known to be attached.
func (s Sight) Attached() bool { return s.Known && s.Conf.Mode.Attached() }

// Absent reports whether it is known that nothing is there.
func (s Sight) Absent() bool { return s.Known && s.Conf.Mode == "" }

// Scene is all that Next decides from.
type Scene struct {
	Tenant fsm.Tenant
	Shard  fsm.Shard

	// Node finds a node; nil when it does not exist any more.
	Node func(neon.NodeID) *fsm.Node

	// On is what is known of the shard's location on a node, and Elsewhere the
	// nodes on which it is not known to be absent.
	On        func(neon.NodeID) Sight
	Elsewhere []neon.NodeID

	// Travels says that the remote data is being put back in time, so that the shard may be
	// nowhere.
	Travels bool

	// MayHave is, with a tenant that is being deleted or that Travels, why something of it
	// may be somewhere else than Elsewhere, in words; "" when nothing reachable can be.
	MayHave string

	// Surveying is set until the first look of this term at the nodes is over. Until
	// then a location may exist that was not seen.
	Surveying bool

	// Vanished is the node from which somebody has taken the attached location away while
	// the node restarted, and who may be about to do more; 0 for none.
	Vanished neon.NodeID

	// Fresh is the generation that was issued in this term and that no call has
	// carried yet; only such a number may start an attachment.
	Fresh neon.Generation

	// Warm and CaughtUp are the destinations that have finished downloading and
	// replaying, for the current move; 0 for none.
	Warm     neon.NodeID
	CaughtUp neon.NodeID

	// Failed are the nodes on which an optional step failed in this pass. The rest goes
	// on without them. Hopeless are nodes that failed for long: nothing is handed over
	// from there.
	Failed   []neon.NodeID
	Hopeless []neon.NodeID

	// Silent are the nodes that do not answer at present, though they may answer again.
	// What can do without them is done first, and nothing is moved to them.
	Silent []neon.NodeID

	// Notifies is set when there is a compute hook.
	Notifies bool

	// Frozen is set while the tenant is being split: nothing of it may be touched.
	Frozen bool
}

// Kind names what a step does.
type Kind uint8

// The kinds of steps.
const (
	Done    Kind = iota // everything reachable is as it should be
	Blocked             // nothing can be done until something changes
	Look                // ask Node what the location is
	Issue               // commit a generation for Node
	Put                 // make the location on Node be Conf
	Warm                // let Node download before it takes over
	CatchUp             // let Node replay what From has
	Notify              // tell compute
	Move                // make Node, which is warm, the intended one
)

// String is the kind in words, for logs.
func (k Kind) String() string {
	return [...]string{
		"done", "blocked", "look", "issue", "put", "warm", "catch up", "notify", "move",
	}[k]
}

// Step is the one next thing to do for a shard.
type Step struct {
	Kind  Kind
	Node  neon.NodeID
	From  neon.NodeID // with CatchUp: the origin
	Conf  Conf        // with Put
	Flush bool        // with Put: the origin flushes first
	Why   string      // with Blocked: for people

	// Optional says that a failure does not hold up the rest: serving the shard does
	// not depend on it.
	Optional bool
}

// Next names the next step. It is pure and total, and it never names a step that
// would break a promise, whatever was seen. A generation is committed before it is
// sent. Compute is told before the old location goes. The planner looks at what it
// does not know before it spends a generation.
func Next(s *Scene) Step {
	if s.Frozen {
		return Step{Kind: Blocked, Why: "the tenant is being split"}
	}
	if s.Shard.Unmanaged {
		return Step{Kind: Done}
	}
	if s.Tenant.Scheduling == neon.ShardStop && !s.Tenant.Deleting {
		return Step{Kind: Done}
	}
	if n := s.ahead(); n != 0 {
		return Step{Kind: Blocked, Node: n, Why: fmt.Sprintf(
			"node %d has generation %s, newer than %s, which was the last one issued", n,
			s.On(n).Conf.Generation, s.Shard.Generation)}
	}
	if s.unplaced() {
		return Step{Kind: Blocked, Why: "there is no node to place it on"}
	}
	if s.Shard.Attached != 0 {
		if step := s.attach(); step.Kind != Done {
			return step
		}
	}
	if s.Shard.Attached != 0 && s.Owes() {
		if step := s.warmSecondaries(s.answers); step.Kind != Done {
			return step // compute may take its time
		}
		return Step{Kind: Notify}
	}
	if step := s.clearOthers(); step.Kind != Done {
		return step
	}
	return s.followPreference()
}

// ahead finds a node that holds a number which was never issued: the log has gone
// back in time, and touching anything could destroy data.
func (s *Scene) ahead() neon.NodeID {
	for _, n := range s.Elsewhere {
		if at := s.On(n); at.Attached() && at.Conf.Generation > s.Shard.Generation {
			return n
		}
	}
	return 0
}

// unplaced reports whether the shard should be somewhere and no node could be chosen.
// Then everything that exists of it is left alone.
func (s *Scene) unplaced() bool {
	switch s.Tenant.Policy.Kind {
	case neon.PlaceAttached:
		return s.Shard.Attached == 0
	case neon.PlaceSecondary:
		return len(s.Shard.Secondary) == 0
	}
	return false
}

// up reports whether a node may be called. One that is deleted by force may not: its
// tombstone would end the calls that are under way.
func (s *Scene) up(n neon.NodeID) bool {
	node := s.Node(n)
	return node != nil && node.Available() && !Forced(node.Operation)
}

// Forced reports whether an operation deletes its node by force.
func Forced(o fsm.Operation) bool { return o.Kind == fsm.OperationDelete && o.Force }

// tidies reports whether a node is one to tidy up, as far as this pass has seen.
func (s *Scene) tidies(n neon.NodeID) bool { return s.up(n) && !slices.Contains(s.Failed, n) }

// silent reports whether a node does not answer; answers is the contrary.
func (s *Scene) silent(n neon.NodeID) bool  { return slices.Contains(s.Silent, n) }
func (s *Scene) answers(n neon.NodeID) bool { return !s.silent(n) }

// unanswered is the step while a destination is silent.
func unanswered(n neon.NodeID) Step {
	return Step{Kind: Blocked, Node: n, Why: fmt.Sprintf("node %d does not answer", n)}
}

// Owes reports whether compute has to be told of the newest generation.
func (s *Scene) Owes() bool { return s.Notifies && s.Shard.OwesNotification() }

// AttachedConf is what the location on the intended node is to be, in a mode.
func (s *Scene) AttachedConf(mode neon.LocationMode) Conf {
	return Conf{
		Mode: mode, Generation: s.Shard.Generation, Stripe: s.stripe(), Config: s.locationConfig(),
	}
}

// stripe is the stripe size where it means something: pageservers keep none for
// an unsharded tenant.
func (s *Scene) stripe() neon.StripeSize {
	if s.Shard.ID.IsUnsharded() {
		return 0
	}
	return s.Tenant.Stripe
}

func (s *Scene) locationConfig() neon.TenantConfig {
	wanted := max(s.Tenant.Policy.WantedSecondaries(), len(s.Shard.Secondary))
	if s.Tenant.Policy.Kind != neon.PlaceAttached {
		wanted = 0
	}
	return s.Tenant.Config.ForLocation(wanted)
}

func (s *Scene) secondaryConf() Conf {
	return Conf{Mode: neon.Secondary, Stripe: s.stripe(), Config: s.locationConfig()}
}

// attach brings the shard to its intended node. Done means that it is attached
// there in its newest generation and alone.
func (s *Scene) attach() Step {
	d := s.Shard.Attached
	if !s.up(d) {
		return Step{Kind: Blocked, Node: d, Why: fmt.Sprintf("node %d is not available", d)}
	}
	at := s.On(d)
	if s.Shard.GenNode != d {
		return s.takeOver(at)
	}
	if !at.Known && s.Fresh != s.Shard.Generation {
		return Step{Kind: Look, Node: d}
	}
	current := at.Attached() && at.Conf.Generation == s.Shard.Generation
	switch {
	case current && at.Conf.Mode == neon.AttachedMulti:
		return s.cutOver()
	case current && at.Conf.Mode == neon.AttachedSingle:
		if want := s.AttachedConf(neon.AttachedSingle); at.Conf != want {
			return Step{Kind: Put, Node: d, Conf: want}
		}
		return Step{Kind: Done}
	case s.Fresh == s.Shard.Generation:
		return s.begin()
	case s.Vanished == d && at.Absent():
		return Step{Kind: Blocked, Node: d, Why: fmt.Sprintf(
			"its location on node %d was taken away while the node restarted", d)}
	}
	// The number may have been used for an attachment that is gone, or it is held
	// in the mode of a migration that was given up: only a new one is safe.
	return s.issue(d)
}

// issue asks for the next generation for a node, unless there is none: nothing could
// ever be attached in it.
func (s *Scene) issue(n neon.NodeID) Step {
	if s.Shard.Exhausted() {
		return Step{Kind: Blocked, Node: n, Why: "all its generations are used up"}
	}
	return Step{Kind: Issue, Node: n}
}

// takeOver prepares a node that the newest generation was not issued to. While
// the origin can be reached it is a live migration: the origin stops writing and
// flushes, the destination warms up, and only then a generation is spent. The shard stays
// where it is as long as the destination does not answer.
func (s *Scene) takeOver(at Sight) Step {
	d := s.Shard.Attached
	o, unknown := s.Origin()
	switch {
	case s.Shard.Exhausted():
		return s.issue(d) // the origin goes on serving
	case unknown != 0:
		return Step{Kind: Look, Node: unknown}
	case o == 0, s.Shard.GenNode == 0:
		return s.issue(d)
	}
	if s.silent(d) {
		return unanswered(d)
	}
	if !at.Known {
		return Step{Kind: Look, Node: d}
	}
	if at.Attached() {
		return s.issue(d) // an older attachment of its own: respawned with the new number
	}
	if at.Conf.Mode == neon.Secondary && s.Warm != d {
		return Step{Kind: Warm, Node: d, From: o}
	}
	from := s.On(o).Conf
	if from.Mode != neon.AttachedStale {
		from.Mode = neon.AttachedStale // in the origin's own generation
		return Step{Kind: Put, Node: o, Conf: from, Flush: true}
	}
	return s.issue(d)
}

// Origin is the reachable attached location with the highest generation outside
// the intended node, and otherwise a reachable one that has to be looked at. A node
// that answers nothing but heartbeats must not keep the shard from being served:
// after a while it counts as one that cannot be reached, and at once if compute does not
// read there. Where the shard was before the log says, until the nodes were listed.
func (s *Scene) Origin() (best, unknown neon.NodeID) {
	consider := func(n neon.NodeID) {
		if n == 0 || n == s.Shard.Attached || !s.up(n) || slices.Contains(s.Hopeless, n) ||
			n != s.Shard.AcknowledgedNode && s.Notifies && s.silent(n) {
			return
		}
		switch at := s.On(n); {
		case !at.Known:
			unknown = n
		case at.Attached() && (best == 0 || at.Conf.Generation > s.On(best).Conf.Generation):
			best = n
		}
	}
	consider(s.Shard.GenNode)
	if s.Shard.GenNode == s.Shard.Attached {
		// A term that has just begun need not have seen anything yet of where it was.
		consider(s.Shard.PriorNode)
		consider(s.Shard.AcknowledgedNode)
	}
	for _, n := range s.Elsewhere {
		consider(n)
	}
	return best, unknown
}

// begin sends the fresh generation: beside a reachable origin as Multi, so that
// nothing is deleted while compute may still read there, else as Single.
func (s *Scene) begin() Step {
	o, unknown := s.Origin()
	if unknown != 0 {
		return Step{Kind: Look, Node: unknown}
	}
	mode := neon.AttachedSingle
	if o != 0 && s.Shard.Generation > 1 {
		mode = neon.AttachedMulti
	}
	return Step{Kind: Put, Node: s.Shard.Attached, Conf: s.AttachedConf(mode)}
}

// cutOver finishes a live migration whose destination is attached as Multi.
func (s *Scene) cutOver() Step {
	d := s.Shard.Attached
	o, unknown := s.Origin()
	switch {
	case unknown != 0:
		return Step{Kind: Look, Node: unknown}
	case o == 0 && s.Surveying:
		return Step{Kind: Blocked, Node: d, Why: "its origin may not have been listed yet"}
	case o == 0:
		return Step{Kind: Put, Node: d, Conf: s.AttachedConf(neon.AttachedSingle)}
	case s.CaughtUp != d:
		return Step{Kind: CatchUp, Node: d, From: o}
	case s.Owes():
		return Step{Kind: Notify}
	case s.Shard.HasSecondary(o):
		return Step{Kind: Put, Node: o, Conf: s.secondaryConf()}
	}
	return Step{Kind: Put, Node: o}
}

// warmSecondaries creates the secondaries that are known to be missing, on some nodes. One
// that is still attached is left to clearOthers, after compute was told.
func (s *Scene) warmSecondaries(some func(neon.NodeID) bool) Step {
	want := s.secondaryConf()
	for _, n := range s.Shard.Secondary {
		if at := s.On(n); some(n) && s.tidies(n) && at.Known && !at.Attached() && at.Conf != want {
			return Step{Kind: Put, Node: n, Conf: want, Optional: true}
		}
	}
	return Step{Kind: Done}
}

// clearOthers demotes and detaches what the intent does not name; one node that
// fails does not keep the others from being tidied up, and those that do not answer come
// last. For a tenant that is being deleted it also waits until nothing can be anywhere
// else.
func (s *Scene) clearOthers() Step {
	for _, some := range []func(neon.NodeID) bool{s.answers, s.silent} {
		if step := s.clearSome(some); step.Kind != Done {
			return step
		}
	}
	if s.Tenant.Deleting || s.Travels {
		return s.nowhereElse()
	}
	return Step{Kind: Done}
}

// clearSome is clearOthers for some nodes.
func (s *Scene) clearSome(some func(neon.NodeID) bool) Step {
	if step := s.warmSecondaries(some); step.Kind != Done {
		return step
	}
	for _, n := range s.Shard.Secondary {
		switch at := s.On(n); {
		case !some(n), !s.tidies(n):
		case at.Attached(), at.Failed:
			// Compute does not use it, and the call costs no generation: after one that
			// failed it is a call that has to succeed, whatever a look has found.
			return Step{Kind: Put, Node: n, Conf: s.secondaryConf(), Optional: true}
		case !at.Known:
			return Step{Kind: Look, Node: n, Optional: true}
		}
	}
	for _, n := range s.Elsewhere {
		if at := s.On(n); some(n) && s.tidies(n) && !s.Shard.Intends(n) && !at.Absent() {
			return Step{Kind: Put, Node: n, Optional: true}
		}
	}
	return Step{Kind: Done}
}

// Clear names the next step towards having a shard nowhere, of which no tenant knows.
// Nodes that cannot be called are passed over.
func Clear(s *Scene) Step {
	for _, n := range s.Elsewhere {
		if s.tidies(n) && !s.On(n).Absent() {
			return Step{Kind: Put, Node: n, Optional: true}
		}
	}
	return Step{Kind: Done}
}

// Left is a node on which a shard still is or may be, though it should be nowhere; 0
// for none.
func (s *Scene) Left() neon.NodeID {
	for _, n := range s.Elsewhere {
		if s.Node(n) != nil && !s.On(n).Absent() {
			return n
		}
	}
	return 0
}

// nowhereElse ends the clearing for a deletion, which removes data for good, and for a time
// travel, which replaces it: a node that has just re-attached may serve the shard, though
// it takes no calls yet.
func (s *Scene) nowhereElse() Step {
	if s.MayHave != "" {
		return Step{Kind: Blocked, Why: s.MayHave}
	}
	for _, n := range s.Elsewhere {
		node := s.Node(n)
		switch {
		case node == nil || s.On(n).Absent():
		case node.Availability == neon.NodeWarmingUp:
			return Step{
				Kind: Blocked, Node: n,
				Why: fmt.Sprintf("node %d has just started and may have it", n),
			}
		case Forced(node.Operation): // which may be cancelled, and then it still has it
			return Step{
				Kind: Blocked, Node: n,
				Why: fmt.Sprintf("node %d is being deleted and may have it", n),
			}
		}
	}
	return Step{Kind: Done}
}

// followPreference makes a move that may take its time: the secondary on the
// preferred node is warmed, and becomes the intended node when it is warm. Until
// then nothing depends on it.
func (s *Scene) followPreference() Step {
	p := s.Shard.PreferredNode
	switch {
	case p == 0, s.Shard.Attached == 0, p == s.Shard.Attached, !s.Shard.HasSecondary(p), !s.up(p):
		return Step{Kind: Done}
	case s.Shard.Exhausted():
		return s.issue(p) // it could not be taken over there
	case s.silent(p):
		return unanswered(p)
	case s.Warm != p:
		return Step{Kind: Warm, Node: p}
	}
	return Step{Kind: Move, Node: p}
}
