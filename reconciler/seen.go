package reconciler

import (
	"slices"
	"sync"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

// seen is what one leader knows of the locations on the pageservers. It starts
// empty, which means that everything is unknown. A location is unknown unless it
// was told by an answer that nothing sent later can have changed.
type seen struct {
	mu     sync.Mutex
	clock  uint64 // counts changes; orders answers against calls
	shards map[neon.ShardID]*shardSeen
	listed map[neon.NodeID]uint64 // nodes whose listing is complete, by incarnation
	on     map[neon.NodeID]int    // how many entries of shards there are for each node
	forgot map[neon.NodeID]uint64 // clock at which all about a node became unknown
	ever   map[neon.NodeID]bool   // nodes that were listed, whatever became of it
}

// shardSeen is what is known of one shard.
type shardSeen struct {
	locations []location
	fresh     neon.Generation
	warm      neon.NodeID
	caughtUp  neon.NodeID
}

// location is what is known of a shard on a node. Where there is none, the shard
// is absent if the node was listed and unknown if it was not.
type location struct {
	node   neon.NodeID
	known  bool
	failed bool   // the last call failed
	calls  int32  // calls under way that may change it
	at     uint64 // clock of the last change
	conf   plan.Conf
}

func newSeen() *seen {
	return &seen{
		shards: make(map[neon.ShardID]*shardSeen), listed: make(map[neon.NodeID]uint64),
		on: make(map[neon.NodeID]int), forgot: make(map[neon.NodeID]uint64),
		ever: make(map[neon.NodeID]bool),
	}
}

func (s *seen) shard(id neon.ShardID) *shardSeen {
	sh := s.shards[id]
	if sh == nil {
		sh = &shardSeen{}
		s.shards[id] = sh
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
func (s *seen) locate(sh *shardSeen, n neon.NodeID) *location {
	if l := sh.find(n); l != nil {
		return l
	}
	return s.add(sh, location{node: n})
}

func (s *seen) add(sh *shardSeen, l location) *location {
	s.on[l.node]++
	sh.locations = append(sh.locations, l)
	return &sh.locations[len(sh.locations)-1]
}

func (s *seen) remove(sh *shardSeen, n neon.NodeID) {
	for i := range sh.locations {
		if sh.locations[i].node == n {
			s.on[n]--
			last := len(sh.locations) - 1
			sh.locations[i] = sh.locations[last]
			sh.locations = sh.locations[:last]
			return
		}
	}
}

// now counts one change.
func (s *seen) now() uint64 {
	s.clock++
	return s.clock
}

// scene fills in what is known of a shard.
func (s *seen) scene(sc *plan.Scene, nodeListed func(neon.NodeID, uint64) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var locations []location
	if sh := s.shards[sc.Shard.ID]; sh != nil {
		locations = append(locations, sh.locations...)
		sc.Fresh, sc.Warm, sc.CaughtUp = sh.fresh, sh.warm, sh.caughtUp
	}
	listed := make(map[neon.NodeID]bool, 2)
	note := func(n neon.NodeID) {
		if inc, ok := s.listed[n]; ok && nodeListed(n, inc) {
			listed[n] = true
		}
	}
	for _, l := range locations {
		sc.Elsewhere = append(sc.Elsewhere, l.node)
	}
	note(sc.Shard.Attached)
	note(sc.Shard.GenNode)
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

// beginCall marks a location unknown before a call that may change it.
func (s *seen) beginCall(id neon.ShardID, n neon.NodeID, g neon.Generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shard(id)
	l := s.locate(sh, n)
	if sh.warm == n && l.known && l.conf.Mode == "" {
		sh.warm = 0 // what was downloaded once is gone
	}
	l.known, l.failed, l.conf, l.at = false, false, plan.Conf{}, s.now()
	l.calls++
	if sh.fresh == g {
		sh.fresh = 0 // from here on the number may be in use
	}
}

// endCall records the answer. Without success, or when the node's process changed
// meanwhile, the location stays unknown.
func (s *seen) endCall(id neon.ShardID, n neon.NodeID, conf plan.Conf, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shard(id)
	l := s.locate(sh, n)
	l.calls = max(0, l.calls-1)
	l.at = s.now()
	if !ok || l.calls > 0 {
		l.known, l.failed, l.conf = false, !ok, plan.Conf{}
		return
	}
	// an absence stays on record until the next listing
	l.known, l.failed, l.conf = true, false, conf
}

// looked records the answer of a look that began at a clock reading, unless a
// call has touched the location since, or the answer is of an earlier process.
func (s *seen) looked(id neon.ShardID, n neon.NodeID, conf *plan.Conf, began uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forgot[n] > began {
		return
	}
	sh := s.shard(id)
	l := s.locate(sh, n)
	if l.calls > 0 || l.at > began {
		return
	}
	l.at = s.now()
	l.known, l.conf = conf != nil, plan.Conf{}
	if conf != nil {
		l.conf = *conf
	}
}

// cuttingOver lists the shards that are attached beside their origins, as far as is
// known.
func (s *seen) cuttingOver() (ids []neon.ShardID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, sh := range s.shards {
		if slices.ContainsFunc(sh.locations,
			func(l location) bool { return l.known && l.conf.Mode == neon.AttachedMulti }) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *seen) reading() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now()
}

// grant notes that a generation was issued in this term and not sent yet. A new
// number starts a new move: what was downloaded counts, what was replayed does not.
func (s *seen) grant(grants []fsm.Grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range grants {
		sh := s.shard(g.Shard)
		sh.fresh, sh.caughtUp = g.Generation, 0
	}
}

func (s *seen) progress(id neon.ShardID, set func(*shardSeen)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set(s.shard(id))
}

// forgetNode makes everything on a node unknown: its process is another one.
func (s *seen) forgetNode(n neon.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listed, n)
	s.forgot[n] = s.now()
	for _, sh := range s.shards {
		if l := sh.find(n); l != nil {
			l.known, l.failed, l.conf, l.at = false, false, plan.Conf{}, s.now()
		}
		if sh.warm == n {
			sh.warm = 0
		}
		if sh.caughtUp == n {
			sh.caughtUp = 0
		}
	}
}

// dropNode forgets a node that was deleted, and all there was on it. Whoever has its
// id later is somebody else.
func (s *seen) dropNode(n neon.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listed, n)
	delete(s.ever, n)
	for _, sh := range s.shards {
		s.remove(sh, n)
	}
	delete(s.on, n)
}

// forget makes places unknown, whatever was heard of them: something else than a
// call of the workers changes them.
func (s *seen) forget(places []fsm.Leftover) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range places {
		l := s.locate(s.shard(p.Shard), p.Node)
		l.known, l.failed, l.conf, l.at = false, false, plan.Conf{}, s.now()
	}
}

// forgetShard drops what is known of a shard that does not exist any more, but not
// where it is or may be: whoever makes it exist again before that is tidied up has to
// know. What is left goes with the next listing of its node.
func (s *seen) forgetShard(id neon.ShardID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shards[id]
	if sh == nil {
		return
	}
	var left []location
	for _, l := range sh.locations {
		if l.known && l.conf.Mode == "" {
			s.on[l.node]--
			continue
		}
		left = append(left, l)
	}
	if *sh = (shardSeen{locations: left}); len(left) == 0 {
		delete(s.shards, id)
	}
}

// list takes over a complete listing of a node that began at a clock reading and
// returns the shards whose location on the node changed by it. One that was fetched
// from an earlier process says nothing.
func (s *seen) list(
	n neon.NodeID, incarnation uint64, began uint64, found map[neon.ShardID]*plan.Conf,
) (changed []neon.ShardID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forgot[n] > began {
		return nil
	}
	for id, conf := range found {
		sh := s.shard(id)
		l := sh.find(n)
		if l != nil && (l.calls > 0 || l.at > began) {
			continue
		}
		next := location{node: n, at: s.now()}
		if conf != nil {
			next.known, next.conf = true, *conf
		}
		if l == nil {
			s.add(sh, next)
			changed = append(changed, id)
			continue
		}
		if l.known != next.known || l.conf != next.conf {
			changed = append(changed, id)
		}
		next.calls = l.calls
		*l = next
	}
	changed = append(changed, s.unlisted(n, began, found)...)
	s.listed[n], s.ever[n] = incarnation, true
	return changed
}

// unlisted drops what was thought to be on a node and is not in its listing. Every
// shard that was found has an entry by now: with no more entries than those there
// is nothing to drop, and no need to look at every shard there is.
func (s *seen) unlisted(
	n neon.NodeID, began uint64, found map[neon.ShardID]*plan.Conf,
) (dropped []neon.ShardID) {
	if s.on[n] == len(found) {
		return nil
	}
	for id, sh := range s.shards {
		l := sh.find(n)
		if _, there := found[id]; l == nil || there || l.calls > 0 || l.at > began {
			continue
		}
		s.remove(sh, n)
		dropped = append(dropped, id)
		if len(sh.locations) == 0 && sh.fresh == 0 {
			delete(s.shards, id)
		}
	}
	return dropped
}

func (s *seen) listedAt(n neon.NodeID) (incarnation uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	incarnation, ok = s.listed[n]
	return incarnation, ok
}

func (s *seen) everListed(n neon.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ever[n]
}

// attachedOn lists the shards that are, or may be, attached on a node.
func (s *seen) attachedOn(n neon.NodeID) (ids []neon.ShardID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, sh := range s.shards {
		if l := sh.find(n); l != nil && (!l.known || l.conf.Mode.Attached()) {
			ids = append(ids, id)
		}
	}
	return ids
}

// anyOn lists the shards that are, or may be, on a node.
func (s *seen) anyOn(n neon.NodeID) (ids []neon.ShardID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, sh := range s.shards {
		if l := sh.find(n); l != nil && (!l.known || l.conf.Mode != "") {
			ids = append(ids, id)
		}
	}
	return ids
}

// observed is what is known of a shard, in wire form, for people.
func (s *seen) observed(shard *fsm.Shard) map[neon.NodeID]*neon.LocationConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[neon.NodeID]*neon.LocationConfig)
	sh := s.shards[shard.ID]
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
