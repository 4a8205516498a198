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

// bequest is who was a member of the cluster that this server's was made of by a rescue.
type bequest struct {
	mu  sync.Mutex
	dir *datadir.Dir // nil: nothing is kept
	all []datadir.Predecessor
}

func (b *bequest) load(dir *datadir.Dir) (err error) {
	b.dir = dir
	b.all, err = dir.Predecessors()
	return err
}

// list is a copy of them.
func (b *bequest) list() []datadir.Predecessor {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.all)
}

// at is the id of the one at an address, or "".
func (b *bequest) at(addr string) string {
	for _, p := range b.list() {
		if p.RaftAddr == addr {
			return p.ID
		}
	}
	return ""
}

// forget leaves the address of one to whoever comes there. It reports whether there was one.
func (b *bequest) forget(id string) (known bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	others := slices.DeleteFunc(slices.Clone(b.all),
		func(p datadir.Predecessor) bool { return p.ID == id })
	if len(others) == len(b.all) {
		return false, nil
	}
	if err := b.dir.SetPredecessors(others); err != nil {
		return true, err
	}
	b.all = others
	return true, nil
}

// predecessors calls the members of the cluster of which this server's was made by a
// rescue, until they are members again, or an operator has removed them. Those that come back
// with an empty disk may have the flags of a founder: by the greeting they hear that they were
// members of a cluster, and serve no empty state; see former.go.
type predecessors struct {
	node    *raftNode
	self    *identity
	peers   *peers
	streams *streams
}

// run calls each of them for itself, so that one that hangs does not make the calls to the
// others rarer.
func (p predecessors) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, m := range p.self.before.list() {
		wg.Go(func() {
			for p.self.before.at(m.RaftAddr) == m.ID {
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

func (p predecessors) call(ctx context.Context, addr string) {
	ctx, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	if conn, _, err := p.streams.dial(ctx, addr, tagPeer); err == nil {
		_ = conn.Close()
	}
}
