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
	"slices"
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
	shards map[neon.ShardID]*shardSeen
	listed map[neon.NodeID]uint64 // nodes whose listing is complete, by incarnation
	on     map[neon.NodeID]int    // how many entries of shards there are for each node
	forgot map[neon.NodeID]uint64 // clock at which all about a node became unknown
	ever   map[neon.NodeID]bool   // nodes that were listed, whatever became of it
	lost   map[neon.ShardID]loss
}

// shardSeen is what is known of one shard.
type shardSeen struct {
	locations []location
	fresh     neon.Generation
	warm      neon.NodeID
	caughtUp  neon.NodeID
}

// loss is a node that had a shard attached when its process ended, and did not have it any
// more when it was listed afterwards, and the time of that listing.
type loss struct {
	node neon.NodeID
	at   time.Time
}

// location is what is known of a shard on a node. Where there is none, the shard
// is absent if the node was listed and unknown if it was not.
type location struct {
	node   neon.NodeID
	known  bool
	failed bool   // the last call failed
	had    bool   // it was attached when the node's process ended, and not seen since
	calls  int32  // calls under way that may change it
	mixed  bool   // several calls were under way at a time, and some still are
	at     uint64 // clock of the last change
	conf   plan.Conf
}

// New knows nothing yet.
func New() *Locations {
	return &Locations{
		shards: make(map[neon.ShardID]*shardSeen), listed: make(map[neon.NodeID]uint64),
		on: make(map[neon.NodeID]int), forgot: make(map[neon.NodeID]uint64),
		ever: make(map[neon.NodeID]bool), lost: make(map[neon.ShardID]loss),
	}
}

func (o *Locations) shard(id neon.ShardID) *shardSeen {
	sh := o.shards[id]
	if sh == nil {
		sh = &shardSeen{}
		o.shards[id] = sh
	}
	return sh
}

func (sh *shardSeen) find(n neon.NodeID) *location {
	for i := range sh.locations {
		if sh.locations[i].node == n {
			return &sh.locations[i]
		}
	}
	return nil
}

// locate finds or makes a shard's entry for a node, as unknown.
func (o *Locations) locate(sh *shardSeen, n neon.NodeID) *location {
	if l := sh.find(n); l != nil {
		return l
	}
	return o.add(sh, location{node: n})
}

func (o *Locations) add(sh *shardSeen, l location) *location {
	o.on[l.node]++
	sh.locations = append(sh.locations, l)
	return &sh.locations[len(sh.locations)-1]
}

func (o *Locations) remove(sh *shardSeen, n neon.NodeID) {
	for i := range sh.locations {
		if sh.locations[i].node == n {
			o.on[n]--
			last := len(sh.locations) - 1
			sh.locations[i] = sh.locations[last]
			sh.locations = sh.locations[:last]
			return
		}
	}
}

// now counts one change.
func (o *Locations) now() uint64 {
	o.clock++
	return o.clock
}

// Describe fills in what is known of a shard.
func (o *Locations) Describe(sc *plan.Scene, nodeListed func(neon.NodeID, uint64) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var locations []location
	if sh := o.shards[sc.Shard.ID]; sh != nil {
		locations = append(locations, sh.locations...)
		sc.Fresh, sc.Warm, sc.CaughtUp = sh.fresh, sh.warm, sh.caughtUp
	}
	listed := make(map[neon.NodeID]bool, 2)
	note := func(n neon.NodeID) {
		if inc, ok := o.listed[n]; ok && nodeListed(n, inc) {
			listed[n] = true
		}
	}
	for _, l := range locations {
		sc.Elsewhere = append(sc.Elsewhere, l.node)
	}
	note(sc.Shard.Attached)
	note(sc.Shard.GenNode)
	note(sc.Shard.PriorNode)
	note(sc.Shard.AcknowledgedNode)
	for _, n := range sc.Shard.Secondary {
		note(n)
	}
	sc.On = func(n neon.NodeID) plan.Sight {
		for i := range locations {
			if locations[i].node == n {
				return plan.Sight{
					Known: locations[i].known, Conf: locations[i].conf, Failed: locations[i].failed,
				}
			}
		}
		return plan.Sight{Known: listed[n]}
	}
}

// BeginCall marks a location unknown before a call that may change it.
func (o *Locations) BeginCall(id neon.ShardID, n neon.NodeID, g neon.Generation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	sh := o.shard(id)
	l := o.locate(sh, n)
	if sh.warm == n && l.known && l.conf.Mode == "" {
		sh.warm = 0 // what was downloaded once is gone
	}
	l.known, l.failed, l.conf, l.at = false, false, plan.Conf{}, o.now()
	if l.had = false; o.lost[id].node == n {
		delete(o.lost, id)
	}
	l.calls++
	l.mixed = l.mixed || l.calls > 1
	if sh.fresh == g {
		sh.fresh = 0 // from here on the number may be in use
	}
}

// EndCall records the answer. Without success, or when the node's process changed
// meanwhile, the location stays unknown. So it does after calls that were under way at the
// same time, whose effects may have come in any order.
func (o *Locations) EndCall(id neon.ShardID, n neon.NodeID, conf plan.Conf, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	sh := o.shard(id)
	l := o.locate(sh, n)
	l.calls = max(0, l.calls-1)
	l.at = o.now()
	mixed := l.mixed
	l.mixed = mixed && l.calls > 0
	if !ok || mixed {
		l.known, l.failed, l.conf = false, !ok, plan.Conf{}
		return
	}
	// an absence stays on record until the next listing
	l.known, l.failed, l.conf = true, false, conf
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
	sh := o.shard(id)
	l := o.locate(sh, n)
	if l.calls > 0 || l.at > began {
		return l.calls == 0
	}
	l.at = o.now()
	l.known, l.conf, l.had = conf != nil, plan.Conf{}, false
	if conf != nil {
		l.conf = *conf
	}
	return true
}

// CuttingOver lists the shards that are attached beside their origins, as far as is
// known.
func (o *Locations) CuttingOver() (ids []neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, sh := range o.shards {
		if slices.ContainsFunc(sh.locations,
			func(l location) bool { return l.known && l.conf.Mode == neon.AttachedMulti }) {
			ids = append(ids, id)
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
		sh := o.shard(g.Shard)
		sh.fresh, sh.caughtUp = g.Generation, 0
	}
}

// SetWarm notes that a shard's secondary on a node has finished downloading, for the
// current move; 0 takes that back.
func (o *Locations) SetWarm(id neon.ShardID, n neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shard(id).warm = n
}

// SetCaughtUp notes that the destination of a live migration has replayed what its
// origin had.
func (o *Locations) SetCaughtUp(id neon.ShardID, n neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shard(id).caughtUp = n
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
	for _, sh := range o.shards {
		l := sh.find(n)
		if l == nil {
			continue
		}
		if l.had = false; l.calls == 0 {
			o.remove(sh, n)
		}
	}
}

func (o *Locations) forgetNode(n neon.NodeID) {
	delete(o.listed, n)
	o.forgot[n] = o.now()
	for _, sh := range o.shards {
		if l := sh.find(n); l != nil {
			l.had = l.had || l.known && l.conf.Mode.Attached()
			l.known, l.failed, l.conf, l.at = false, false, plan.Conf{}, o.now()
		}
		if sh.warm == n {
			sh.warm = 0
		}
		if sh.caughtUp == n {
			sh.caughtUp = 0
		}
	}
}

// DropNode forgets a node that was deleted, and all there was on it. A node with the
// same id later is another one.
func (o *Locations) DropNode(n neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.listed, n)
	delete(o.ever, n)
	for _, sh := range o.shards {
		o.remove(sh, n)
	}
	maps.DeleteFunc(o.lost, func(_ neon.ShardID, x loss) bool { return x.node == n })
	delete(o.on, n)
}

// Forget makes places unknown, whatever was heard of them: something other than a call
// of the workers changes them.
func (o *Locations) Forget(places []fsm.Leftover) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range places {
		l := o.locate(o.shard(p.Shard), p.Node)
		l.known, l.failed, l.conf, l.at = false, false, plan.Conf{}, o.now()
	}
}

// ForgetShard drops what is known of a shard that does not exist any more, but not
// where it is or may be: the shard may be created again before that is tidied up. What
// is left goes with the next listing of its node.
func (o *Locations) ForgetShard(id neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.lost, id)
	sh := o.shards[id]
	if sh == nil {
		return
	}
	var left []location
	for _, l := range sh.locations {
		if l.known && l.conf.Mode == "" {
			o.on[l.node]--
			continue
		}
		left = append(left, l)
	}
	if *sh = (shardSeen{locations: left}); len(left) == 0 {
		delete(o.shards, id)
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
		sh := o.shard(id)
		l := sh.find(n)
		if l != nil && (l.calls > 0 || l.at > began) {
			continue
		}
		next := location{node: n, at: o.now()}
		if conf != nil {
			next.known, next.conf = true, *conf
		}
		if l == nil {
			o.add(sh, next)
			changed = append(changed, id)
			continue
		}
		if l.known != next.known || l.conf != next.conf {
			changed = append(changed, id)
		}
		next.calls = l.calls
		*l = next
	}
	changed = append(changed, o.unlisted(n, began, found)...)
	o.listed[n], o.ever[n] = incarnation, true
	return changed
}

// unlisted drops what was thought to be on a node and is not in its listing. Every
// shard that was found has an entry by now: with no more entries than those there
// is nothing to drop, and no need to look at every shard there is.
func (o *Locations) unlisted(
	n neon.NodeID, began uint64, found map[neon.ShardID]*plan.Conf,
) (dropped []neon.ShardID) {
	if o.on[n] == len(found) {
		return nil
	}
	for id, sh := range o.shards {
		l := sh.find(n)
		if _, there := found[id]; l == nil || there || l.calls > 0 || l.at > began {
			continue
		}
		if l.had {
			o.lost[id] = loss{n, time.Now()}
		}
		o.remove(sh, n)
		dropped = append(dropped, id)
		if len(sh.locations) == 0 && sh.fresh == 0 {
			delete(o.shards, id)
		}
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

// AttachedOn lists the shards that are, or may be, attached on a node.
func (o *Locations) AttachedOn(n neon.NodeID) (ids []neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, sh := range o.shards {
		if l := sh.find(n); l != nil && (!l.known || l.conf.Mode.Attached()) {
			ids = append(ids, id)
		}
	}
	return ids
}

// AnyOn lists the shards that are, or may be, on a node.
func (o *Locations) AnyOn(n neon.NodeID) (ids []neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, sh := range o.shards {
		if l := sh.find(n); l != nil && (!l.known || l.conf.Mode != "") {
			ids = append(ids, id)
		}
	}
	return ids
}

// AnyOf lists the nodes on which a shard is, or may be.
func (o *Locations) AnyOf(id neon.ShardID) (nodes []neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if sh := o.shards[id]; sh != nil {
		for _, l := range sh.locations {
			if !l.known || l.conf.Mode != "" {
				nodes = append(nodes, l.node)
			}
		}
	}
	return nodes
}

// Wire is what is known of a shard, in wire form, for people.
func (o *Locations) Wire(shard *fsm.Shard) map[neon.NodeID]*neon.LocationConfig {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make(map[neon.NodeID]*neon.LocationConfig)
	sh := o.shards[shard.ID]
	if sh == nil {
		return out
	}
	for _, l := range sh.locations {
		switch {
		case !l.known:
			out[l.node] = nil
		case l.conf.Mode != "":
			out[l.node] = l.conf.LocationConfig(shard.ID)
		}
	}
	return out
}

// Serves reports whether the newest generation of a shard was seen to serve. The
// destination of a live migration serves once it has caught up.
func (o *Locations) Serves(sh *fsm.Shard) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.shards[sh.ID]
	if known == nil || sh.GenNode == 0 {
		return false
	}
	l := known.find(sh.GenNode)
	if l == nil || !l.known || l.conf.Generation != sh.Generation {
		return false
	}
	return l.conf.Mode == neon.AttachedSingle ||
		l.conf.Mode == neon.AttachedMulti && known.caughtUp == sh.GenNode
}
