package cluster

import (
	"context"
	"log/slog"
	"time"
)

// absentAfter is how long a member may be silent before the leader says so. A restart
// takes less.
const absentAfter = 10 * time.Second

// absence tells of members that are gone: the leader warns once of each, and says once
// when it is back. A new leader begins anew. Only run uses it.
type absence struct {
	leads   func() bool
	members func() []MemberStatus
	log     *slog.Logger

	silent map[string]*silence // by member
}

// silence is that of one member.
type silence struct {
	since    time.Time
	reported bool
}

// run looks until ctx ends.
func (a *absence) run(ctx context.Context) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.look(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// look tells of changes. A member is silent that has not answered for longer than it
// takes to ask it twice.
func (a *absence) look(now time.Time) {
	if !a.leads() {
		a.silent = nil
		return
	}
	old := a.silent
	a.silent = make(map[string]*silence)
	for _, m := range a.members() {
		if m.Self {
			continue
		}
		s := old[m.ID]
		if m.LastContact >= 0 && m.LastContact <= 3*reportInterval {
			if s != nil && s.reported {
				a.log.Info("a member is back", "member", m.ID, "addr", m.RaftAddr,
					"away", now.Sub(s.since).Round(time.Second).String())
			}
			continue
		}
		if s == nil {
			s = &silence{since: now}
			if m.LastContact >= 0 {
				s.since = now.Add(-m.LastContact)
			}
		}
		a.silent[m.ID] = s
		if away := now.Sub(s.since); !s.reported && away >= absentAfter {
			s.reported = true
			a.log.Warn("a member is gone; start it, or remove it if it does not come back",
				"member", m.ID, "addr", m.RaftAddr, "away", away.Round(time.Second).String(),
				"voter", m.Voter)
		}
	}
}
