package cluster

import (
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/store"
)

// peerReport is what a server says about itself.
type peerReport struct {
	ID           string `json:"id"`
	State        string `json:"state"`
	Term         uint64 `json:"term"`
	LastTerm     uint64 `json:"last_term"`
	LastIndex    uint64 `json:"last_index"`
	AppliedIndex uint64 `json:"applied_index"`
	// Disk and Run are those of the greeting. Held is an entry on the disk that was committed.
	Disk string `json:"disk,omitempty"`
	Run  string `json:"run,omitempty"`
	Held uint64 `json:"held,omitempty"`

	Sick       bool   `json:"sick,omitempty"`
	SickReason string `json:"sick_reason,omitempty"`
	Empty      bool   `json:"empty,omitempty"`  // no raft state at all
	Uptime     int64  `json:"uptime,omitempty"` // of the process, in seconds

	// Points are hashes of the state, computed as Scheme says; see equality. Diverged
	// says why the server is out of service, and Wrong whether a majority said so.
	Scheme   uint64  `json:"scheme,omitempty"`
	Points   []point `json:"points,omitempty"`
	Diverged string  `json:"diverged,omitempty"`
	Wrong    bool    `json:"wrong,omitempty"`

	// Members are the ids of the newest membership that is committed, and MembersAt its
	// index. A leader that has not applied all that was committed before its term does not
	// know it, and tells none.
	MembersAt uint64   `json:"members_at,omitempty"`
	Members   []string `json:"members,omitempty"`
}

// reporter makes this server's reports.
type reporter struct {
	node     *raftNode
	self     *identity
	fsm      *fsm
	health   *store.Health
	equality *equality
	started  time.Time
	opened   func() bool // this server leads, and has applied all that was committed before
}

func (r reporter) report() peerReport {
	lastIndex, lastTerm := r.node.lastEntry()
	disk := r.health.Report()
	r.fsm.look()
	scheme, points := r.fsm.points.newest()
	state, opened := r.node.raft().State(), r.opened()
	membersAt, members := r.fsm.members.now()
	if state == raft.Leader && !opened {
		membersAt, members = 0, nil
	}
	return peerReport{
		ID: r.node.id, State: state.String(), Term: r.node.raft().CurrentTerm(),
		Disk: r.self.disk, Run: r.self.run, Held: r.node.appliedOnDisk(),
		LastTerm: lastTerm, LastIndex: lastIndex, AppliedIndex: r.fsm.applied.index(),
		Sick: !disk.Fit, SickReason: disk.Reason, Empty: lastIndex == 0,
		Uptime: int64(time.Since(r.started).Seconds()),
		Scheme: scheme, Points: points, Diverged: r.equality.diverged(),
		Wrong:     r.equality.wrong(),
		MembersAt: membersAt, Members: members,
	}
}
