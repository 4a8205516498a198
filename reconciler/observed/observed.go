// Package observed has what one leader has seen of the locations on pageservers.
//
// It starts empty, and everything is unknown. "Unknown" and "nothing there" are never
// mixed up: a location becomes unknown before a call that may change it, and only an
// answer that nothing sent later can have changed makes it known again.
//
// The package looks at no pageserver and decides nothing. The reconciler tells it of
// calls and answers, and it fills in the scenes of the planner.
package observed

import (
	"maps"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

// Locations is what one leader knows of the locations on the pageservers. Its methods
// may be called at any time.
type Locations struct {
	mu     sync.Mutex
	clock  uint64 // counts changes; orders answers against calls
	store  store
	moves  map[neon.ShardID]move
	listed map[neon.NodeID]uint64 // nodes whose listing is complete, by incarnation
	forgot map[neon.NodeID]uint64 // clock at which all about a node became unknown
	ever   map[neon.NodeID]bool   // nodes that were listed, whatever became of it
	lost   map[neon.ShardID]loss
}

// move is what is known of a shard that is to be moved, or was.
type move struct {
	fresh    neon.Generation
	warm     neon.NodeID
	caughtUp neon.NodeID
}

// loss is a node that had a shard attached when its process ended, and did not have it any
// more when it was listed afterwards, and the time of that listing.
type loss struct {
	node neon.NodeID
	at   time.Time
}

// New knows nothing yet.
func New() *Locations {
	return &Locations{
		store: newStore(), moves: make(map[neon.ShardID]move),
		listed: make(map[neon.NodeID]uint64), forgot: make(map[neon.NodeID]uint64),
		ever: make(map[neon.NodeID]bool), lost: make(map[neon.ShardID]loss),
	}
}

// now counts one change.
func (o *Locations) now() uint64 {
	o.clock++
	return o.clock
}

// setMove notes what is known of a shard that moves. Most do not.
func (o *Locations) setMove(id neon.ShardID, m move) {
	if m == (move{}) {
		delete(o.moves, id)
		return
	}
	o.moves[id] = m
}

// unknown makes a location unknown.
func (o *Locations) unknown(l *location) {
	l.unlearn()
	l.at = o.now()
}

// Describe fills in what is known of a shard.
func (o *Locations) Describe(sc *plan.Scene, nodeListed func(neon.NodeID, uint64) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := make([]sighted, 0, 4)
	for l := range o.store.of(sc.Shard.ID) {
		n := o.store.node(l)
		sc.Elsewhere = append(sc.Elsewhere, n)
		seen = append(seen, sighted{n, plan.Sight{
			Known: l.is(known), Conf: l.conf(), Failed: l.is(failed),
		}})
	}
	m := o.moves[sc.Shard.ID]
	sc.Fresh, sc.Warm, sc.CaughtUp = m.fresh, m.warm, m.caughtUp
	note := func(n neon.NodeID) {
		for i := range seen {
			if seen[i].node == n {
				return
			}
		}
		if inc, ok := o.listed[n]; ok && nodeListed(n, inc) {
			seen = append(seen, sighted{n, plan.Sight{Known: true}})
		}
	}
	note(sc.Shard.Attached)
	note(sc.Shard.GenNode)
	note(sc.Shard.PriorNode)
	note(sc.Shard.AcknowledgedNode)
	for _, n := range sc.Shard.Secondary {
		note(n)
	}
	sc.On = func(n neon.NodeID) plan.Sight {
		for i := range seen {
			if seen[i].node == n {
				return seen[i].sight
			}
		}
		return plan.Sight{}
	}
}

// sighted is what is known of a shard on one node.
type sighted struct {
	node  neon.NodeID
	sight plan.Sight
}

// BeginCall marks a location unknown before a call that may change it.
func (o *Locations) BeginCall(id neon.ShardID, n neon.NodeID, g neon.Generation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, m := o.store.locate(id, n), o.moves[id]
	if m.warm == n && l.absent() {
		m.warm = 0 // what was downloaded once is gone
	}
	if m.fresh == g {
		m.fresh = 0 // from here on the number may be in use
	}
	o.setMove(id, m)
	o.unknown(l)
	l.set(had, false)
	if o.lost[id].node == n {
		delete(o.lost, id)
	}
	l.calls++
	l.set(mixed, l.is(mixed) || l.calls > 1)
}

// EndCall records the answer. Without success, or when the node's process changed
// meanwhile, the location stays unknown. So it does after calls that were under way at the
// same time, whose effects may have come in any order.
func (o *Locations) EndCall(id neon.ShardID, n neon.NodeID, conf plan.Conf, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.store.locate(id, n)
	l.calls = max(0, l.calls-1)
	overlapped := l.is(mixed)
	l.set(mixed, overlapped && l.calls > 0)
	o.unknown(l)
	if !ok || overlapped {
		l.set(failed, !ok)
		return
	}
	// an absence stays on record until the next listing
	l.learn(conf)
}

// Looked records the answer of a look that began at a clock reading, unless a
// call has touched the location since, or the answer is of an earlier process. It is
// false while a call is under way: another look would say as little.
func (o *Locations) Looked(
	id neon.ShardID, n neon.NodeID, conf *plan.Conf, began uint64,
) (settled bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.forgot[n] > began {
		return true
	}
	l := o.store.locate(id, n)
	if l.calls > 0 || l.at > began {
		return l.calls == 0
	}
	wasFailed := l.is(failed)
	o.unknown(l)
	l.set(failed, wasFailed)
	l.set(had, false)
	if conf != nil {
		l.learn(*conf)
	}
	return true
}

// CuttingOver lists the shards that are attached beside their origins, as far as is
// known.
func (o *Locations) CuttingOver() (ids []neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.store.nodes {
		for l := range o.store.on(o.store.nodes[i].node) {
			if l.is(known) && modes[l.mode] == neon.AttachedMulti {
				ids = append(ids, l.shard)
			}
		}
	}
	return ids
}

// Clock is a reading to order the answer of a request that begins now against calls.
func (o *Locations) Clock() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now()
}

// Grant notes that a generation was issued in this term and not sent yet. A new
// number starts a new move: what was downloaded counts, what was replayed does not.
func (o *Locations) Grant(grants []fsm.Grant) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, g := range grants {
		m := o.moves[g.Shard]
		m.fresh, m.caughtUp = g.Generation, 0
		o.setMove(g.Shard, m)
	}
}

// SetWarm notes that a shard's secondary on a node has finished downloading, for the
// current move; 0 takes that back.
func (o *Locations) SetWarm(id neon.ShardID, n neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.moves[id]
	m.warm = n
	o.setMove(id, m)
}

// SetCaughtUp notes that the destination of a live migration has replayed what its
// origin had.
func (o *Locations) SetCaughtUp(id neon.ShardID, n neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.moves[id]
	m.caughtUp = n
	o.setMove(id, m)
}

// ForgetNode makes everything on a node unknown: its process is another one.
func (o *Locations) ForgetNode(n neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forgetNode(n)
}

// ClearNode forgets a node whose disk was lost, and drops what there was on it. A report
// of that may be late, and the node may have got something since. So nothing is taken
// for absent until the node is listed, as if it never had been in this term.
func (o *Locations) ClearNode(n neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forgetNode(n)
	delete(o.ever, n)
	for l := range o.store.on(n) {
		if l.set(had, false); l.calls == 0 {
			o.store.remove(l)
		}
	}
}

func (o *Locations) forgetNode(n neon.NodeID) {
	delete(o.listed, n)
	o.forgot[n] = o.now()
	for l := range o.store.on(n) {
		l.set(had, l.is(had) || l.attached())
		o.unknown(l)
	}
	for id, m := range o.moves {
		if m.warm == n {
			m.warm = 0
		}
		if m.caughtUp == n {
			m.caughtUp = 0
		}
		o.setMove(id, m)
	}
}

// DropNode forgets a node that was deleted, and all there was on it. A node with the
// same id later is another one.
func (o *Locations) DropNode(n neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.listed, n)
	delete(o.ever, n)
	for l := range o.store.on(n) {
		o.store.remove(l)
	}
	maps.DeleteFunc(o.lost, func(_ neon.ShardID, x loss) bool { return x.node == n })
}

// Forget makes places unknown, whatever was heard of them: something other than a call
// of the workers changes them.
func (o *Locations) Forget(places []fsm.Leftover) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range places {
		o.unknown(o.store.locate(p.Shard, p.Node))
	}
}

// ForgetShard drops what is known of a shard that does not exist any more, but not
// where it is or may be: the shard may be created again before that is tidied up. What
// is left goes with the next listing of its node.
func (o *Locations) ForgetShard(id neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.lost, id)
	delete(o.moves, id)
	for l := range o.store.of(id) {
		if l.absent() {
			o.store.remove(l)
		}
	}
}

// List takes over a complete listing of a node that began at a clock reading and
// returns the shards whose location on the node changed by it. One that was fetched
// from an earlier process says nothing.
func (o *Locations) List(
	n neon.NodeID, incarnation uint64, began uint64, found map[neon.ShardID]*plan.Conf,
) (changed []neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.forgot[n] > began {
		return nil
	}
	for id, conf := range found {
		if o.listOne(id, n, began, conf) {
			changed = append(changed, id)
		}
	}
	changed = append(changed, o.unlisted(n, began, found)...)
	o.listed[n], o.ever[n] = incarnation, true
	return changed
}

// listOne takes over one entry of a listing and reports whether the location changed.
func (o *Locations) listOne(
	id neon.ShardID, n neon.NodeID, began uint64, conf *plan.Conf,
) (changed bool) {
	l := o.store.find(id, n)
	if l == nil {
		l, changed = o.store.locate(id, n), true
	} else if l.calls > 0 || l.at > began {
		return false
	}
	knew, was := l.is(known), l.conf()
	o.unknown(l)
	l.set(had|mixed, false)
	if conf != nil {
		l.learn(*conf)
	}
	return changed || l.is(known) != knew || l.conf() != was
}

// unlisted drops what was thought to be on a node and is not in its listing. Every
// shard that was found has an entry by now: with no more entries than those there
// is nothing to drop, and no need to look at them.
func (o *Locations) unlisted(
	n neon.NodeID, began uint64, found map[neon.ShardID]*plan.Conf,
) (dropped []neon.ShardID) {
	if o.store.count(n) == len(found) {
		return nil
	}
	for l := range o.store.on(n) {
		if _, there := found[l.shard]; there || l.calls > 0 || l.at > began {
			continue
		}
		if l.is(had) {
			o.lost[l.shard] = loss{n, time.Now()}
		}
		dropped = append(dropped, l.shard)
		o.store.remove(l)
	}
	return dropped
}

// Vanished is the node that had a shard attached when its process ended, and did not have it
// any more when it was listed afterwards, and the time of that listing; 0 for none.
func (o *Locations) Vanished(id neon.ShardID) (n neon.NodeID, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.lost[id]
	return x.node, x.at
}

// ListedAt is the incarnation of a node whose listing is complete; false when the
// node was not listed since its process started.
func (o *Locations) ListedAt(n neon.NodeID) (incarnation uint64, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	incarnation, ok = o.listed[n]
	return incarnation, ok
}

// EverListed reports whether a node was listed in this term, also if its process is
// another one now.
func (o *Locations) EverListed(n neon.NodeID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ever[n]
}

// Count is how many locations are known of, on all nodes.
func (o *Locations) Count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for i := range o.store.nodes {
		n += o.store.nodes[i].count
	}
	return n
}

// AttachedOn lists the shards that are, or may be, attached on a node.
func (o *Locations) AttachedOn(n neon.NodeID) (ids []neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for l := range o.store.on(n) {
		if !l.is(known) || l.attached() {
			ids = append(ids, l.shard)
		}
	}
	return ids
}

// AnyOn lists the shards that are, or may be, on a node.
func (o *Locations) AnyOn(n neon.NodeID) (ids []neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for l := range o.store.on(n) {
		if !l.absent() {
			ids = append(ids, l.shard)
		}
	}
	return ids
}

// AnyOf lists the nodes on which a shard is, or may be.
func (o *Locations) AnyOf(id neon.ShardID) (nodes []neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for l := range o.store.of(id) {
		if !l.absent() {
			nodes = append(nodes, o.store.node(l))
		}
	}
	return nodes
}

// Wire is what is known of a shard, in wire form, for people.
func (o *Locations) Wire(shard *fsm.Shard) map[neon.NodeID]*neon.LocationConfig {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make(map[neon.NodeID]*neon.LocationConfig)
	for l := range o.store.of(shard.ID) {
		switch {
		case !l.is(known):
			out[o.store.node(l)] = nil
		case !l.absent():
			out[o.store.node(l)] = l.conf().LocationConfig(shard.ID)
		}
	}
	return out
}

// Serves reports whether the newest generation of a shard was seen to serve. The
// destination of a live migration serves once it has caught up.
func (o *Locations) Serves(sh *fsm.Shard) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if sh.GenNode == 0 {
		return false
	}
	l := o.store.find(sh.ID, sh.GenNode)
	if l == nil || !l.is(known) || l.generation != sh.Generation {
		return false
	}
	return modes[l.mode] == neon.AttachedSingle ||
		modes[l.mode] == neon.AttachedMulti && o.moves[sh.ID].caughtUp == sh.GenNode
}
