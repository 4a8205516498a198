package cluster

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

const (
	// missedAfter is the silence after which a member counts as absent.
	missedAfter = 3 * reportInterval

	// fewestVoters is how many voters autopilot leaves at least.
	fewestVoters = 3

	// autopilotLimit bounds one change that autopilot makes.
	autopilotLimit = 10 * time.Second
)

// autopilot changes the membership without an operator, on the leader, one change at a
// time. It gives learners their votes, but never makes a number of voters that survives
// the loss of fewer members. It removes members that were gone for a set time, but leaves
// three voters, of which a majority answers.
type autopilot struct {
	node       *raftNode
	peers      *peers
	membership *membership
	leads      func() bool
	log        *slog.Logger

	// promotes gives learners their votes when that helps. Otherwise they get them only in
	// the place of a voter that is to be removed.
	promotes    bool
	removeAfter time.Duration // 0: no member is removed

	// absent says since when this leader has missed each member. A new leader starts anew:
	// it does not believe what it saw as a follower.
	absent   map[string]time.Time
	looked   time.Time
	reported map[string]bool // learners of which the log has a line
}

func (a *autopilot) run(ctx context.Context) {
	for wait.Sleep(ctx, reportInterval) == nil {
		if !a.leads() {
			a.absent, a.reported = nil, nil
			continue
		}
		a.look()
		if err := a.step(ctx); err != nil {
			a.log.Info("could not change the membership yet", "err", err)
		}
	}
}

// look notices who is absent. A pause between two looks is not held against anybody: this
// server was frozen then, and perhaps the others with it.
func (a *autopilot) look() {
	before := a.absent
	if time.Since(a.looked) > autopilotLimit+missedAfter {
		before = nil
	}
	a.looked = time.Now()
	a.absent = make(map[string]time.Time)
	for _, s := range a.node.servers() {
		id := string(s.ID)
		if id == a.node.id || a.present(id) {
			continue
		}
		if a.absent[id] = before[id]; a.absent[id].IsZero() {
			a.absent[id] = time.Now()
		}
	}
}

func (a *autopilot) present(id string) bool {
	l := a.peers.link(id)
	return l != nil && l.up() && time.Since(time.Unix(0, l.seen.Load())) < missedAfter
}

// gone reports whether a member was missed for so long that it is to be removed.
func (a *autopilot) gone(id string) bool {
	since, absent := a.absent[id]
	return absent && a.removeAfter > 0 && time.Since(since) >= a.removeAfter
}

// step makes the one change that is due, if any.
func (a *autopilot) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, autopilotLimit)
	defer cancel()
	var c census
	var lost, ready []string
	for _, s := range a.node.servers() {
		id, votes := string(s.ID), s.Suffrage == raft.Voter
		switch {
		case votes && a.gone(id):
			c.voters, c.gone, lost = c.voters+1, c.gone+1, append(lost, id)
		case votes:
			c.voters++
			if _, absent := a.absent[id]; !absent {
				c.live++
			}
		case a.gone(id):
			return a.remove(ctx, id)
		case a.ready(id):
			ready = append(ready, id)
		}
	}
	c.ready = len(ready)
	switch {
	case c.promotes(a.promotes):
		return a.membership.promote(ctx, ready[0])
	case c.removes():
		return a.remove(ctx, lost[0])
	}
	for _, id := range ready {
		a.tell(id, c.voters)
	}
	return nil
}

// census counts the members.
type census struct {
	voters int // all of them
	live   int // voters that answer
	gone   int // voters that are to be removed
	ready  int // learners that could have a vote
}

// promotes reports whether a learner should have a vote now. An even number of voters
// survives no more losses than one less, so it is passed only on the way to an odd one.
func (c census) promotes(always bool) bool {
	stay := c.voters - min(c.gone, 1) // one is removed afterwards
	switch {
	case c.ready == 0 || !always && c.gone == 0:
		return false
	case stay%2 == 0:
		return true
	}
	return always && c.ready > 1
}

// removes reports whether a voter that is gone can be removed.
func (c census) removes() bool {
	left := c.voters - 1
	return c.gone > 0 && left >= fewestVoters && c.live > left/2
}

func (a *autopilot) remove(ctx context.Context, id string) error {
	silence := time.Since(a.absent[id]).Round(time.Second)
	if err := a.membership.remove(ctx, id); err != nil {
		return err
	}
	a.log.Warn("removed a member that was gone", "member", id, "silent_for", silence, "way_out",
		"to have it back, start it with an empty data directory and another --server-id, with "+
			"--join, and add it")
	return nil
}

// ready reports whether a learner could have a vote.
func (a *autopilot) ready(id string) bool {
	r := a.peers.report(id)
	return r != nil && a.present(id) && !r.Empty && !r.Sick && r.Diverged == "" &&
		r.AppliedIndex+caughtUp >= a.node.raft().CommitIndex()
}

// tell says once why a learner gets no vote.
func (a *autopilot) tell(id string, voters int) {
	if a.reported[id] {
		return
	}
	if a.reported == nil {
		a.reported = make(map[string]bool)
	}
	a.reported[id] = true
	a.log.Info("a member stays without a vote: one more voter survives no more losses",
		"member", id, "voters", voters, "way_out",
		"start another member, or ask for its vote: storcon_cli cluster add "+id)
}
