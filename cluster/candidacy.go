package cluster

import "github.com/hashicorp/raft"

// diskHealth is the verdict on this server's disk.
type diskHealth interface {
	Works() bool // at this moment
	Fit() bool   // and for long enough to lead
}

// candidacy decides whether this server may stand for election.
type candidacy struct {
	node   *raftNode
	health diskHealth
	report func(id string) *peerReport // the newest of a server, nil without one
	// removed says that this server was removed from the cluster, else "".
	removed func() string
}

// mayStand reports whether this server may ask for votes. Its disk has worked for long
// enough, or the disk works again and no other voter is known to have a healthy one.
// Servers that share a disk which hung for a moment must not all wait for a healthier
// one.
func (c candidacy) mayStand() bool {
	if c.removed() != "" {
		return false
	}
	if c.health.Fit() {
		return true
	}
	if !c.health.Works() {
		return false
	}
	others, _ := c.node.otherVoters()
	for _, s := range others {
		if r := c.report(string(s.ID)); r != nil && !r.Sick {
			return false
		}
	}
	return true
}

// campaignIfSingle calls an election at once if this server is the only member. There
// is no leader whose heartbeat it could wait for.
func (c candidacy) campaignIfSingle() {
	servers := c.node.servers()
	if len(servers) != 1 || string(servers[0].ID) != c.node.id ||
		servers[0].Suffrage != raft.Voter || !c.health.Fit() ||
		c.node.raft().State() != raft.Follower {
		return
	}
	c.node.campaign(c.node.timeouts.Election)
}
