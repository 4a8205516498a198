package reconciler

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// A pageserver may answer its heartbeats and no calls. It is unresponsive when it has
// answered none of a kind while one call of that kind waited for long, or several at
// once waited for a short time. Then it has one slot for calls, nothing that can do
// without it waits for it, and it takes no shards.
const (
	unansweredLong  = 5 * time.Second
	unansweredShort = time.Second
	unansweredCalls = 8 // that wait for unansweredShort

	// unansweredFor is how long that is remembered of the last call.
	unansweredFor = time.Minute

	// doubtedFor is how long nothing is moved without need to a node that did not answer its
	// last change. Whoever is not called cannot answer: it may need nothing by then.
	doubtedFor = time.Hour

	// handBackAfter is for how long a node has been unresponsive when what was on its way
	// there goes elsewhere. Its origin serves, and uploads nothing meanwhile.
	handBackAfter = 10 * time.Second

	// placedFor is for how long what an operator has placed stays on its way nevertheless:
	// nobody waits for it any longer.
	placedFor = time.Minute
)

// callKind is what a call is about. A pageserver may answer one kind and not another.
type callKind uint8

const (
	changing callKind = iota // a call that changes a location
	looking                  // a look at a location
	asking                   // a question of a long step
	stepping                 // a long step, of which only the questions are judged

	judged = 3 // kinds from which the node is judged
)

// nodeCall is a call to a node that is under way.
type nodeCall struct {
	node     neon.NodeID
	shard    neon.ShardID
	kind     callKind
	sequence uint64             // of the record of the shard that the call follows from
	patience time.Duration      // how long it may well take
	began    time.Time          // patience later than it did
	give     context.CancelFunc // ends it; nil: it ends with the step that asks
	given    bool               // it was ended
}

// answers knows which pageservers answer the calls of the workers.
type answers struct {
	log    decide.Log
	logger *slog.Logger
	wake   func() // has the rules looked at

	// throttle takes all but one slot from a node.
	throttle func(neon.NodeID)

	mu    sync.Mutex
	nodes map[neon.NodeID]*nodeAnswers
	calls map[neon.ShardID][]*nodeCall
}

// nodeAnswers is what is known of one node.
type nodeAnswers struct {
	kinds        [judged]kindAnswers
	unresponsive bool // as of the last look
	since        time.Time
}

// kindAnswers is what is known of one kind of calls to a node.
type kindAnswers struct {
	calls    map[*nodeCall]struct{}
	answered time.Time // the last one that was
	missed   time.Time // the last one that was given up without an answer
}

func newAnswers(d Deps, wake func()) *answers {
	return &answers{
		log: d.Log, logger: d.Logger, wake: wake, nodes: make(map[neon.NodeID]*nodeAnswers),
		calls: make(map[neon.ShardID][]*nodeCall), throttle: func(neon.NodeID) {},
	}
}

// begin notes that a call is under way.
func (a *answers) begin(c *nodeCall) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.began = time.Now().Add(c.patience)
	a.calls[c.shard] = append(a.calls[c.shard], c)
	if c.kind >= judged {
		return
	}
	n := a.nodes[c.node]
	if n == nil {
		n = &nodeAnswers{}
		a.nodes[c.node] = n
	}
	k := &n.kinds[c.kind]
	if k.calls == nil {
		k.calls = make(map[*nodeCall]struct{})
	}
	k.calls[c] = struct{}{}
}

// outcome is what the end of a call says of its node.
type outcome uint8

const (
	says     outcome = iota // it answered
	misses                  // it did not
	unjudged                // the call was ended for another reason
)

// outcomeOf judges a call by its error. Its context has ended with gone when that was
// for another reason than its time limit.
func outcomeOf(err, gone error) outcome {
	answer := (interface{ HTTPStatus() int })(nil)
	switch {
	case err == nil, errors.As(err, &answer):
		return says
	case gone == nil && errors.Is(err, context.DeadlineExceeded):
		return misses
	}
	return unjudged
}

// end notes the end of a call.
func (a *answers) end(c *nodeCall, o outcome) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if left := slices.DeleteFunc(a.calls[c.shard],
		func(x *nodeCall) bool { return x == c }); len(left) > 0 {
		a.calls[c.shard] = left
	} else {
		delete(a.calls, c.shard)
	}
	n := a.nodes[c.node]
	if n == nil || c.kind >= judged {
		return
	}
	k := &n.kinds[c.kind]
	delete(k.calls, c)
	switch {
	case o == says:
		k.answered, k.missed = time.Now(), time.Time{}
	case o == misses, c.given:
		k.missed = time.Now()
	}
	a.judge(c.node, n)
}

// judge looks whether a node answers. The caller holds the lock.
func (a *answers) judge(id neon.NodeID, n *nodeAnswers) {
	now, is := time.Now(), false
	for i := range n.kinds {
		is = is || n.kinds[i].silent(now)
	}
	if is == n.unresponsive {
		return
	}
	n.unresponsive, n.since = is, now
	a.wake()
	if !is {
		a.logger.Info("Node answers calls again", "node", id)
		return
	}
	a.logger.Info("Node does not answer calls", "node", id)
	a.throttle(id)
	for i := range n.kinds {
		for c := range n.kinds[i].calls {
			a.giveUp(c.shard, func(x *nodeCall) bool { return x.kind >= asking || a.overtaken(x) })
		}
	}
}

func (k *kindAnswers) silent(now time.Time) bool {
	if !k.missed.IsZero() && now.Sub(k.missed) < unansweredFor {
		return true
	}
	several := 0
	for c := range k.calls {
		since := c.began
		if k.answered.After(since) {
			since = k.answered
		}
		switch waits := now.Sub(since); {
		case waits >= unansweredLong:
			return true
		case waits >= unansweredShort:
			several++
		}
	}
	return several >= unansweredCalls
}

// look judges all nodes anew: time has passed.
func (a *answers) look() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, n := range a.nodes {
		a.judge(id, n)
	}
}

// calm reports whether time alone changes nothing: no call is under way, and all nodes have
// answered.
func (a *answers) calm() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.nodes {
		for i := range n.kinds {
			if n.unresponsive || !n.kinds[i].missed.IsZero() {
				return false
			}
		}
	}
	return len(a.calls) == 0
}

// unresponsive lists the nodes that do not answer.
func (a *answers) unresponsive() (ids []neon.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, n := range a.nodes {
		if n.unresponsive {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// handsBack reports whether a node has been unresponsive for so long that what is on its way
// there goes elsewhere.
func (a *answers) handsBack(id neon.NodeID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.nodes[id]
	return n != nil && n.unresponsive && time.Since(n.since) >= handBackAfter
}

// doubted lists the nodes that did not answer the last change that they were asked for. A node
// answers its heartbeats, and looks, and hangs on changes, whether there are any or not.
func (a *answers) doubted() (ids []neon.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, n := range a.nodes {
		k := &n.kinds[changing]
		if n.unresponsive || !k.missed.IsZero() && time.Since(k.missed) < doubtedFor {
			ids = append(ids, id)
		}
	}
	return ids
}

// forget forgets a node: its process is another one, or it was away.
func (a *answers) forget(id neon.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.nodes[id]; n != nil {
		for i := range n.kinds {
			n.kinds[i].answered, n.kinds[i].missed = time.Now(), time.Time{}
		}
		n.unresponsive = false
	}
}

// decided ends the calls about a shard that wait for nodes that do not answer: something
// else was decided about its place, and a worker makes one call for a shard at a time.
func (a *answers) decided(shard neon.ShardID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.calls[shard] {
		if n := a.nodes[c.node]; n != nil && n.unresponsive {
			a.giveUp(shard, a.overtaken)
			return
		}
	}
}

// overtaken reports whether there is a newer decision about the shard of a call.
func (a *answers) overtaken(c *nodeCall) bool {
	sh, ok := a.log.State().Shard(c.shard)
	return ok && sh.Sequence > c.sequence
}

// giveUp ends the calls about a shard for which a condition holds.
func (a *answers) giveUp(shard neon.ShardID, holds func(*nodeCall) bool) {
	for _, c := range a.calls[shard] {
		if holds(c) {
			if c.given = true; c.give != nil {
				c.give()
			}
		}
	}
}

// handedOver reports whether a shard that should be attached is still where compute was told
// that it is, and on its way to another node. One that has got a new number where it is does
// not move: compute reads there. What an operator has placed a short time ago stays on its way.
func handedOver(sh *fsm.Shard, now time.Time) bool {
	placed := sh.PlacedOn == sh.Attached && now.Sub(time.UnixMilli(sh.PlacedAt)) < placedFor
	return !sh.Unmanaged && !placed && sh.AcknowledgedNode != 0 &&
		sh.AcknowledgedNode != sh.Attached
}

// unserved reports whether a shard that should be attached serves nobody: compute was
// not told of its newest place, and the place that it was told of is gone.
func unserved(st *fsm.State, sh *fsm.Shard) bool {
	if sh.Attached == 0 || sh.Unmanaged || sh.GenNode == sh.Attached && sh.ComputeAcknowledged {
		return false
	}
	told, ok := st.Node(sh.AcknowledgedNode)
	return !ok || !told.Available()
}
