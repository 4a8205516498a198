package simsafekeeper

import (
	"slices"

	"quorate/api/neon"
)

// Write is a compute of a new term, which knows nothing but what the safekeepers that
// it reaches tell: it takes the newest configuration that one of them has and gives
// it to the others, is elected by a quorum of the members, of both sets while it is
// joint, goes on from the longest log among them, and writes. Some of them hold what
// it wrote; if they are a quorum it is acknowledged, and must never get lost.
func (f *Fleet) Write(
	ref neon.TimelineRef, by neon.Lsn, reach, hold []neon.NodeID,
) (acknowledged bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	on := make(map[neon.NodeID]*timeline)
	var conf neon.Membership
	for _, id := range reach {
		n := f.nodes[id]
		if n == nil || n.server == nil || n.timelines[ref] == nil {
			continue
		}
		on[id] = n.timelines[ref]
		if c := on[id].conf; c.Generation > conf.Generation {
			conf = c
		}
	}
	var voters, holders []neon.NodeID
	var last position
	for id, t := range on {
		if !conf.Contains(id) {
			continue
		}
		t.conf = conf
		voters = append(voters, id)
		if t.at.compare(last) > 0 {
			last = t.at
		}
		if slices.Contains(hold, id) {
			holders = append(holders, id)
		}
	}
	if !elects(conf, voters) {
		return false
	}
	f.terms[ref]++
	last = position{term: f.terms[ref], lsn: last.lsn + by}
	for _, id := range holders {
		on[id].at = last
	}
	if !elects(conf, holders) {
		return false
	}
	if f.safe[ref].compare(last) < 0 {
		f.safe[ref] = last
	}
	return true
}

// elects reports whether some safekeepers are a quorum of a configuration.
func elects(conf neon.Membership, who []neon.NodeID) bool {
	return len(conf.Members) > 0 && quorum(conf.Members, who) &&
		(conf.NewMembers == nil || quorum(*conf.NewMembers, who))
}

// Lost lists, of a fleet at rest, what was acknowledged to a compute and is not on a
// quorum of the newest configuration.
func (f *Fleet) Lost() (lost []neon.TimelineRef) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ref, want := range f.safe {
		r := f.committed[ref]
		if r == nil || r.deleted {
			continue
		}
		var has []neon.NodeID
		for id, n := range f.nodes {
			if t := n.timelines[ref]; t != nil && t.at.compare(want) >= 0 {
				has = append(has, id)
			}
		}
		if !elects(r.newest, has) {
			lost = append(lost, ref)
		}
	}
	return lost
}
