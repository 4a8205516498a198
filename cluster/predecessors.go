package cluster

import (
	"context"
	"sync"
	"time"

	"quorate/internal/wait"
)

// predecessorPause is the pause between two calls to the members of the cluster that was
// rescued. It is shorter than a server listens before it founds; see listenFirst.
const predecessorPause = time.Second

// predecessor is the member that the cluster which was rescued had at an address, or "".
func (i *identity) predecessor(addr string) string {
	for _, p := range i.predecessors {
		if p.RaftAddr == addr {
			return p.ID
		}
	}
	return ""
}

// predecessors calls the members of the cluster of which this server's was made by a
// rescue, until they are members again. Those that come back with an empty disk may have
// the flags of a founder: by the greeting they hear that they were members of a cluster, and
// serve no empty state; see former.go.
type predecessors struct {
	node    *raftNode
	self    *identity
	peers   *peers
	streams *streams
}

func (p predecessors) run(ctx context.Context) {
	for len(p.self.predecessors) > 0 {
		var wg sync.WaitGroup
		for _, m := range p.self.predecessors {
			if p.node.isMember(m.ID) || p.peers.expected(m.RaftAddr) != "" {
				continue
			}
			wg.Go(func() { p.call(ctx, m.RaftAddr) })
		}
		wg.Wait()
		if wait.Sleep(ctx, predecessorPause) != nil {
			return
		}
	}
}

func (p predecessors) call(ctx context.Context, addr string) {
	ctx, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	if conn, _, err := p.streams.dial(ctx, addr, tagPeer); err == nil {
		_ = conn.Close()
	}
}
