package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/raft"
)

func isDiskError(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		errors.Is(err, syscall.EROFS) ||
		errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EIO)
}

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

// bootstrap writes the initial membership into an empty log. Every server of
// Members writes the same one, so it does not matter who comes first or whether
// it happens twice.
func (c *Cluster) bootstrap(rc *raft.Config) error {
	state, err := raft.HasExistingState(c.stores.log, c.stores.stable, c.stores.snaps)
	if err != nil || state {
		return err
	}
	members := c.cfg.Members
	switch {
	case len(members) > maxServers:
		return fmt.Errorf("cluster: %d members, at most %d are possible", len(members), maxServers)
	case len(members) > 0:
		if !slices.ContainsFunc(members, func(m Member) bool { return m.ID == c.id }) {
			return fmt.Errorf("%w: this server, %q, is not in the list of members",
				ErrUnknownMember, c.id)
		}
	case c.cfg.Expect > 0 || len(c.cfg.Join) > 0:
		return nil // through gossip
	default:
		members = []Member{{ID: c.id, RaftAddr: c.cfg.Advertise}}
	}
	if err := raft.BootstrapCluster(rc, c.stores.log, c.stores.stable, c.stores.snaps, c.transport,
		configuration(members)); err != nil {
		return fmt.Errorf("cluster: bootstrap: %w", err)
	}
	return nil
}
