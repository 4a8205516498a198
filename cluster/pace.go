package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

// pace has the heartbeats of a leader sent less often while the cluster is quiet: each costs
// every server several wake-ups, and raft sends one each 40 to 80 ms.
//
// What must hold: a follower waits for Timeouts.Heartbeat after the last sign of the leader,
// and a leader gives way after Timeouts.Lease without a sign of a majority. So less frequent
// heartbeats delay neither. They only leave less time for a leader that stands still for a
// moment: three fifths of the time-out instead of four fifths. Whoever loses patience too early
// costs an election. So the pace is slow only as long as no entries come, and every heartbeat
// of the last half minute went out and was answered on time.
type pace struct {
	grid time.Duration // between two heartbeats
	zero time.Time     // heartbeats to all servers go out at the same multiples of grid

	mu      sync.Mutex
	entries time.Time // when the last ones were sent
	late    time.Time // when a heartbeat was late
	sent    map[raft.ServerID]time.Time
}

const (
	quietAfter   = 2 * time.Second  // after the last entries
	steadyAfter  = 30 * time.Second // after the last heartbeat that was late
	lateAfter    = 25 * time.Millisecond
	gridOverrun  = 20 * time.Millisecond // beyond grid, at the most
	quietDivisor = 5                     // of the time-out, two of which are the grid
)

func newPace(timeout time.Duration) *pace {
	return &pace{
		grid: 2 * timeout / quietDivisor, zero: time.Now(), entries: time.Now(),
		late: time.Now(), sent: make(map[raft.ServerID]time.Time),
	}
}

// begins notes that entries are sent.
func (p *pace) begins() {
	p.mu.Lock()
	p.entries = time.Now()
	p.mu.Unlock()
}

// rest waits before a heartbeat to a server, as long as the cluster is quiet.
func (p *pace) rest(ctx context.Context, id raft.ServerID) {
	p.mu.Lock()
	now := time.Now()
	quiet := now.Sub(p.entries) >= quietAfter && now.Sub(p.late) >= steadyAfter
	next := p.zero.Add((now.Sub(p.zero)/p.grid + 1) * p.grid)
	if last := p.sent[id].Add(p.grid + gridOverrun); last.Before(next) {
		next = last
	}
	p.mu.Unlock()
	if quiet && wait.Sleep(ctx, next.Sub(now)) == nil && time.Since(next) > lateAfter {
		p.isLate()
	}
	p.mu.Lock()
	p.sent[id] = time.Now()
	p.mu.Unlock()
}

// answered notes that a heartbeat to a server was answered.
func (p *pace) answered(id raft.ServerID) {
	p.mu.Lock()
	took := time.Since(p.sent[id])
	p.mu.Unlock()
	if took > lateAfter {
		p.isLate()
	}
}

func (p *pace) isLate() {
	p.mu.Lock()
	p.late = time.Now()
	p.mu.Unlock()
}
