package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
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

// foundsAlone reports whether a server founds a cluster of one if it has nothing.
func (cfg *Config) foundsAlone() bool {
	return len(cfg.Members) <= 1 && len(cfg.Join) == 0 && cfg.Expect == 0
}

// mayFound reports whether a server may take part in the founding of a cluster if it has
// nothing.
func (cfg *Config) mayFound() bool { return len(cfg.Join) == 0 || cfg.Expect > 0 }

// listening is how long a server that has nothing listens before it takes part in a founding.
// If its port is always the same, members of a cluster that it was in find it. Several servers
// on one machine are a trial, and do not wait for that.
func (cfg *Config) listening() time.Duration {
	host, port, err := net.SplitHostPort(cfg.RaftListen)
	ip := net.ParseIP(host)
	switch {
	case cfg.DataDir == "", err != nil, port == "0", !cfg.mayFound():
		return 0
	case !cfg.foundsAlone() && (host == "localhost" || ip != nil && ip.IsLoopback()):
		return 0
	}
	return listenFirst
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
	if cfg.listening() > 0 {
		return nil // whether it was a member; see founding.go
	}
	if _, err := self.foundingID(); err != nil {
		if errors.Is(err, ErrClusterMismatch) {
			return nil // it waits to be added; see founding.go
		}
		return err
	}
	members := []Member{{ID: n.id, RaftAddr: n.addr}}
	if err := n.store.Bootstrap(rc, n.transport, configuration(members)); err != nil {
		return fmt.Errorf("cluster: bootstrap: %w", err)
	}
	return nil
}

// warnOfIgnored says, once at the start of a server that has state, which members it was
// configured with that are not those of its state. The state counts: a server that has one
// founds nothing, so the others of the list would wait for ever without a word here.
func (n *raftNode) warnOfIgnored(cfg Config, self *identity, log *slog.Logger) {
	if n.empty() {
		return
	}
	have := make(map[string]string)
	var of []Member
	for _, s := range n.servers() {
		have[string(s.ID)] = string(s.Address)
		of = append(of, Member{ID: string(s.ID), RaftAddr: string(s.Address)})
	}
	var wrong []string
	for _, m := range cfg.Members {
		addr, member := have[m.ID]
		delete(have, m.ID)
		switch {
		case !member:
			wrong = append(wrong, m.ID+" is no member")
		case addr != m.RaftAddr && m.ID != n.id:
			wrong = append(wrong, m.ID+" is at "+addr)
		}
	}
	if len(cfg.Members) > 0 {
		for _, m := range of {
			if _, more := have[m.ID]; more {
				wrong = append(wrong, m.ID+" is a member too")
			}
		}
	}
	if len(of) < cfg.Expect {
		wrong = append(wrong, fmt.Sprintf("%d are expected", cfg.Expect))
	}
	if len(wrong) == 0 {
		return
	}
	log.Warn("has state already: --members and --bootstrap-expect are ignored", "because",
		strings.Join(wrong, "; "), "cluster", self.cluster(), "members", ids(sortedMembers(of)),
		"way_out", "correct the flags; to have another member, start it on an empty data "+
			"directory and add it (storage_controller members add ID HOST:PORT)")
}
