package cluster

import (
	"reflect"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/store"
)

// raftNode is this server's raft, as the parts of this package use it.
type raftNode struct {
	id        string
	addr      string // where the other servers reach it
	timeouts  Timeouts
	store     *store.Store
	transport *transport

	running atomic.Pointer[raft.Raft] // nil until raft runs
	down    chan struct{}             // closed when raft's goroutines have ended
}

// raft returns the running raft. Only the disk's judge may ask before it runs.
func (n *raftNode) raft() *raft.Raft { return n.running.Load() }

// leads reports whether raft leads. A leader that may not act as one still leads here.
func (n *raftNode) leads() bool {
	r := n.raft()
	return r != nil && r.State() == raft.Leader
}

// leader returns the id of the leader, as far as this server knows, or "".
func (n *raftNode) leader() string {
	_, id := n.raft().LeaderWithID()
	return string(id)
}

// servers returns the membership.
func (n *raftNode) servers() []raft.Server {
	return n.raft().GetConfiguration().Configuration().Servers
}

// find returns the entry of one server in the membership.
func (n *raftNode) find(id string) (raft.Server, bool) {
	for _, s := range n.servers() {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

func (n *raftNode) isMember(id string) bool {
	_, ok := n.find(id)
	return ok
}

func (n *raftNode) isVoter(id string) bool {
	s, ok := n.find(id)
	return ok && s.Suffrage == raft.Voter
}

// otherVoters returns the voters but this server, and how many voters are a majority.
func (n *raftNode) otherVoters() (others []raft.Server, majority int) {
	voters := 0
	for _, s := range n.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if string(s.ID) != n.id {
			others = append(others, s)
		}
	}
	return others, voters/2 + 1
}

// lastEntry is the newest entry that this server has on disk.
func (n *raftNode) lastEntry() (index, term uint64) {
	index = n.raft().LastIndex()
	var l raft.Log
	if index > 0 && n.store.GetLog(index, &l) == nil {
		term = l.Term
	}
	return index, term
}

// appliedOnDisk is the newest entry that was applied and is on this server's disk. It was
// committed, so that it is there for ever.
func (n *raftNode) appliedOnDisk() uint64 {
	r := n.raft()
	if r == nil {
		return 0
	}
	return min(r.AppliedIndex(), r.LastIndex())
}

// empty reports whether this server has no entry and no snapshot.
func (n *raftNode) empty() bool { return n.raft().LastIndex() == 0 }

func (n *raftNode) header() raft.RPCHeader {
	return raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id), Addr: []byte(n.addr),
	}
}

// campaign makes this server a candidate, as a leader does that hands over to it, unless raft
// is busy for longer than that.
func (n *raftNode) campaign(patience time.Duration) {
	n.transport.call(&raft.TimeoutNowRequest{RPCHeader: n.header()}, patience)
}

// routineHeartbeat reports whether a heartbeat changes nothing but the time of the
// last contact.
func (n *raftNode) routineHeartbeat(rpc raft.RPC) bool {
	req, ok := rpc.Command.(*raft.AppendEntriesRequest)
	return ok && n.raft().State() == raft.Follower && req.Term == n.raft().CurrentTerm()
}

// await waits for an answer of raft.
//
// When raft shuts down, it forgets committed entries that its state machine goroutine
// has not taken yet, and nothing answers for them. So await gives the future a
// channel that shows the end of raft. Futures have a field for it and no method. Raft
// sets the field for some futures only. A future that lacks the field has its answer
// from the beginning.
func (n *raftNode) await(f raft.Future) error {
	endWith(f, n.down)
	return f.Error()
}

// endWith makes a future that is never answered end when down is closed. It reports
// whether it could.
func endWith(f raft.Future, down chan struct{}) bool {
	v := reflect.Indirect(reflect.ValueOf(f))
	if v.Kind() != reflect.Struct {
		return false
	}
	field := v.FieldByName("ShutdownCh")
	if !field.CanSet() || field.Type() != reflect.TypeOf(down) || !field.IsNil() {
		return false
	}
	field.Set(reflect.ValueOf(down))
	return true
}
