package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// configuration lists members as voters, sorted, so that it is the same on every
// server that makes it.
func configuration(members []Member) raft.Configuration {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	var conf raft.Configuration
	for _, m := range members {
		conf.Servers = append(conf.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.RaftAddr),
		})
	}
	return conf
}

// bootstrap writes the initial membership into an empty log. Every server of Members
// writes the same one, so it does not matter which is first, or whether it happens
// twice.
func (n *raftNode) bootstrap(cfg Config, rc *raft.Config) error {
	state, err := n.store.HasState()
	if err != nil || state {
		return err
	}
	members := cfg.Members
	switch {
	case len(members) > maxServers:
		return fmt.Errorf("cluster: %d members, at most %d are possible", len(members), maxServers)
	case len(members) > 0:
		if !slices.ContainsFunc(members, func(m Member) bool { return m.ID == n.id }) {
			return fmt.Errorf("%w: this server, %q, is not in the list of members",
				ErrUnknownMember, n.id)
		}
	case cfg.Expect > 0 || len(cfg.Join) > 0:
		return nil // through gossip
	default:
		members = []Member{{ID: n.id, RaftAddr: n.addr}}
	}
	if err := n.store.Bootstrap(rc, n.transport, configuration(members)); err != nil {
		return fmt.Errorf("cluster: bootstrap: %w", err)
	}
	return nil
}
