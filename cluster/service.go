package cluster

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"quorate/cluster/internal/store"
)

const (
	// leaderlessLimit is how long a server stays in service without a known leader. An
	// election after a host was lost takes up to 1.2 s.
	leaderlessLimit = 3 * time.Second

	// unfitLimit is how long it does with a disk that hangs or is full. A disk that
	// hung for a moment counts as unfit for 2 s afterwards.
	unfitLimit = 4 * time.Second
)

// service says why this server must not be asked anything.
type service struct {
	node       *raftNode
	disk       *store.Health
	leadership *leadership
	equality   *equality
	removal    *removal
	former     *former
	members    func() []MemberStatus
	started    time.Time
}

func newService(c *Cluster) *service {
	return &service{
		node: c.node, disk: c.node.store.Health, leadership: c.leadership,
		equality: c.equality, removal: c.removal, former: c.former, members: c.membership.list,
		started: time.Now(),
	}
}

// reason is "" while the server is in service.
func (s *service) reason() string {
	why := cmp.Or(s.former.reason(), s.removal.reason(), s.equality.diverged())
	if why != "" {
		return why
	}
	if r := s.disk.Report(); !r.Fit && !r.Since.IsZero() && time.Since(r.Since) >= unfitLimit {
		return "the disk here: " + r.Reason
	}
	return s.leaderless(leaderlessLimit)
}

// leaderless says for how long no leader has been known and which voters are missing, or
// "" if one is known or was until a moment ago.
func (s *service) leaderless(limit time.Duration) string {
	if why := s.former.reason(); why != "" {
		return "No leader: " + why
	}
	if s.node.leader() != "" {
		return ""
	}
	if why := s.removal.reason(); why != "" {
		return "No leader: this server is no member, " + why
	}
	_, _, since := s.leadership.counts()
	if since.IsZero() {
		since = s.started
	}
	silence := time.Since(since)
	if silence < limit {
		return ""
	}
	text := fmt.Sprintf("No leader for %v", silence.Truncate(time.Second))
	if s.node.empty() {
		return text + ": this server waits to found its cluster, or to be added to one; its log " +
			"says for whom"
	}
	voters, missing := 0, []string{}
	for _, m := range s.members() {
		if !m.Voter {
			continue
		}
		voters++
		if m.Self || m.Connected {
			continue
		}
		last := "not heard of yet"
		if m.LastContact >= 0 {
			last = fmt.Sprintf("silent for %v", m.LastContact.Truncate(time.Second))
		}
		missing = append(missing, fmt.Sprintf("%s at %s (%s)", m.ID, m.RaftAddr, last))
	}
	if len(missing) == 0 {
		return text
	}
	text += "; missing: " + strings.Join(missing, ", ")
	if voters-len(missing) <= voters/2 {
		text += fmt.Sprintf("; %d of %d voters are no majority: start the missing ones again, or, "+
			"if their disks are lost for good, see storage_controller rescue", voters-len(missing),
			voters)
	}
	return text
}
