package cluster

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"quorate/cluster/internal/datadir"
)

// foundingIndex is the entry with the membership that a cluster was founded with.
const foundingIndex = 1

// former finds out that this server was a member of another cluster, and has lost its disk.
//
// The members of that cluster dial this server, since their membership has a member at its
// address, and their greeting says so. A server that has nothing founds none then, alone or
// with others.
//
// A server that is configured alone founds a cluster if nobody is there who knows better.
// When members of its former cluster come later, there are two clusters, and this one is
// empty, or has only what came since. From then on this server is out of service, also after
// a restart. It keeps what it has, for an operator to decide: it may be that the others are
// mistaken.
//
// A cluster that has had other members, or was made of a survivor or a saved snapshot, is not
// concerned. What it has was decided about before, and members of the cluster that it was
// made of dial it with good reason.
type former struct {
	self    *identity
	node    *raftNode
	members func() (at uint64, ids []string) // the newest membership that is committed
	founds  bool                             // without state, this server founds a cluster
	noticed func()                           // called when the answer of reason has changed
	log     *slog.Logger

	of      atomic.Pointer[datadir.FormerCluster]
	hearing sync.Mutex // one call at a time
}

func newFormer(c *Cluster) *former {
	return &former{
		self: c.self, node: c.node, founds: c.cfg.mayFound(), log: c.log,
		members: func() (uint64, []string) { return c.fsm.members.now() },
		noticed: func() {
			c.leadership.refresh(fmt.Errorf("%w: %w", ErrLeadershipLost, ErrFormerMember))
		},
	}
}

// load takes what was noted before a restart.
func (f *former) load() error {
	if f.self.dir == nil {
		return nil
	}
	of, err := f.self.dir.FormerCluster()
	if err == nil && of != nil {
		f.of.Store(of)
		f.tell()
	}
	return err
}

// called hears a server of another cluster, or of any while this server is of none.
func (f *former) called(who greeting) {
	if who.Expects == "" {
		return
	}
	f.hearing.Lock()
	defer f.hearing.Unlock()
	of := datadir.FormerCluster{
		Own: f.self.cluster(), Cluster: who.Cluster, Member: who.Expects, Server: who.ID,
		RaftAddr: who.Raft,
	}
	if f.reason() != "" || !f.concerned() || !of.Valid() {
		return
	}
	f.of.Store(&of)
	f.noticed()
	f.tell()
	if f.self.dir == nil {
		return
	}
	if err := f.self.dir.SetFormerCluster(of); err != nil {
		f.log.Error("it could not be noted that this replica is out of service; it is not after a "+
			"restart", "err", err)
	}
}

func (f *former) tell() {
	if why := f.reason(); why != "" {
		f.log.Error("this replica is out of service: " + why)
	}
}

// concerned reports whether this server has founded a cluster that has had no other member,
// or is about to.
func (f *former) concerned() bool {
	at, _ := f.members()
	return loner{
		empty: f.node.empty(), founds: f.founds, cluster: f.self.cluster(),
		made: f.self.madeCluster(), at: at, members: len(f.node.servers()),
	}.concerned()
}

// loner is what a server knows of itself that may have founded a cluster of one.
type loner struct {
	empty   bool // it has no entry
	founds  bool // without any it founds a cluster
	cluster string
	made    bool   // it has made the cluster's id
	at      uint64 // the index of the newest membership that is committed
	members int    // in the newest one
}

func (k loner) concerned() bool {
	if k.empty {
		return k.founds && (k.made || k.cluster == "")
	}
	return k.made && k.at == foundingIndex && k.members == 1
}

// elsewhere reports whether what a server has heard while it was of one cluster holds now.
func elsewhere(then, now string, founds bool) bool {
	return then == now && (now != "" || founds)
}

// cluster is the one that this server was a member of, and why that matters, or "".
func (f *former) cluster() (id, why string) {
	if why = f.reason(); why != "" {
		id = f.of.Load().Cluster
	}
	return id, why
}

// reason says why this server must not be asked anything; "" while it may be.
func (f *former) reason() string {
	of := f.of.Load()
	if of == nil || !elsewhere(of.Own, f.self.cluster(), f.founds) {
		return ""
	}
	did := "founds none"
	otherwise := "To give that cluster up instead, stop its members and empty this data directory"
	if of.Own != "" {
		did = "has founded cluster " + of.Own + " meanwhile, which is not that one"
		otherwise = "If that cluster is mistaken, and the state here is the right one: " +
			"storcon_cli cluster remove " + of.Member + " there, if that still takes this address for " +
			"its own, and storage_controller rescue --force here"
	}
	return fmt.Sprintf("%s at %s of cluster %s takes this server for its member %s; it was a "+
		"member of it and has lost its disk, and %s. Stop it, move its data directory away, start "+
		"it with another --server-id and --join %s, and have it take the place of %s "+
		"(storcon_cli cluster replace %s NEW-ID, or cluster add if it is no member any more). %s",
		of.Server, of.RaftAddr, of.Cluster,
		of.Member, did, of.RaftAddr, of.Member, of.Member, otherwise)
}
