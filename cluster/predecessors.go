package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	"quorate/cluster/internal/datadir"
	"quorate/internal/wait"
)

// predecessorPause is the pause between two calls to a member of the cluster that was
// rescued. With the time that a call may take it is shorter than a server listens before it
// founds; see listenFirst.
const predecessorPause = 500 * time.Millisecond

// predecessorList is who was a member of the cluster that this server's was made of by a rescue.
type predecessorList struct {
	mu  sync.Mutex
	dir *datadir.Dir // nil: nothing is kept
	all []datadir.Predecessor
}

func (l *predecessorList) load(dir *datadir.Dir) (err error) {
	l.dir = dir
	l.all, err = dir.Predecessors()
	return err
}

// list is a copy of them.
func (l *predecessorList) list() []datadir.Predecessor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// at is the id of the one at an address, or "".
func (l *predecessorList) at(addr string) string {
	for _, p := range l.list() {
		if p.RaftAddr == addr {
			return p.ID
		}
	}
	return ""
}

// forget leaves the address of one to whoever comes there. It reports whether there was one.
func (l *predecessorList) forget(id string) (known bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	others := slices.DeleteFunc(slices.Clone(l.all),
		func(p datadir.Predecessor) bool { return p.ID == id })
	if len(others) == len(l.all) {
		return false, nil
	}
	if err := l.dir.SetPredecessors(others); err != nil {
		return true, err
	}
	l.all = others
	return true, nil
}

// predecessorCalls calls the members of the cluster of which this server's was made by a
// rescue, until they are members again, or an operator has removed them. Those that come back
// with an empty disk may have the flags of a founder: by the greeting they hear that they were
// members of a cluster, and serve no empty state; see former.go.
type predecessorCalls struct {
	node    *raftNode
	self    *identity
	peers   *peers
	streams *streams
}

// run calls each of them for itself, so that one that hangs does not make the calls to the
// others rarer.
func (p predecessorCalls) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, m := range p.self.predecessors.list() {
		wg.Go(func() {
			for p.self.predecessors.at(m.RaftAddr) == m.ID {
				if !p.node.isMember(m.ID) && p.peers.expected(m.RaftAddr) == "" {
					p.call(ctx, m.RaftAddr)
				}
				if wait.Sleep(ctx, predecessorPause) != nil {
					return
				}
			}
		})
	}
	wg.Wait()
}

func (p predecessorCalls) call(ctx context.Context, addr string) {
	ctx, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	if conn, _, err := p.streams.dial(ctx, addr, tagPeer); err == nil {
		_ = conn.Close()
	}
}
