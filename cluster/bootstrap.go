package cluster

import (
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/datadir"
)

// configuration lists members as voters, sorted, so that it is the same on every
// server that makes it.
func configuration(members []Member) raft.Configuration {
	var conf raft.Configuration
	for _, m := range sortedMembers(members) {
		conf.Servers = append(conf.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.RaftAddr),
		})
	}
	return conf
}

// bootstrap founds a cluster of one, if this server is configured alone and its disk is
// empty. The cluster's id is on disk before the membership is, so that a server with
// state always knows its cluster. Several servers found their cluster together, see
// founding.go.
func (n *raftNode) bootstrap(cfg Config, self *identity, rc *raft.Config) error {
	state, err := n.store.HasState()
	if err != nil || state {
		return err
	}
	switch {
	case len(cfg.Members) > 0 && len(cfg.Join) > 0 && cfg.GossipListen == "":
		return fmt.Errorf("%w: a server either founds a cluster with --members or waits for an "+
			"invitation with --join", ErrClusterMismatch)
	case len(cfg.Members) > maxServers:
		return fmt.Errorf("cluster: %d members, at most %d are possible", len(cfg.Members),
			maxServers)
	case len(cfg.Members) > 0:
		if !slices.ContainsFunc(cfg.Members, func(m Member) bool { return m.ID == n.id }) {
			return fmt.Errorf("%w: this server, %q, is not in the list of members",
				ErrUnknownMember, n.id)
		}
		if len(cfg.Members) > 1 {
			return nil
		}
	case cfg.Expect > 0 || len(cfg.Join) > 0:
		return nil
	}
	if cfg.ClusterID != "" {
		return fmt.Errorf("%w: the disk is empty, so this server cannot be of cluster %s yet: "+
			"name its members to join it, or leave the cluster's id out to found a new one",
			ErrClusterMismatch, cfg.ClusterID)
	}
	if self.cluster() == "" {
		if err := self.setCluster(datadir.NewID()); err != nil {
			return err
		}
	}
	members := []Member{{ID: n.id, RaftAddr: n.addr}}
	if err := n.store.Bootstrap(rc, n.transport, configuration(members)); err != nil {
		return fmt.Errorf("cluster: bootstrap: %w", err)
	}
	return nil
}
