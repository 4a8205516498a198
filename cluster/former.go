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
// A server that is configured alone founds a cluster if nobody is there who knows better.
// When members of its former cluster come later, there are two clusters, and this one is
// empty, or has only what came since. Those members dial this server, since their
// membership has a member at its address, and their greeting says so. From then on this
// server is out of service, also after a restart. It keeps what it has, for an operator to
// decide: it may be that the others are mistaken.
//
// A cluster that has had other members, or was made of a survivor or a saved snapshot, is not
// concerned. What it has was decided about before, and members of the cluster that it was
// made of dial it with good reason.
type former struct {
	self    *identity
	node    *raftNode
	members func() (at uint64, ids []string) // the newest membership that is committed
	alone   bool                             // without state, this server founds alone
	noticed func()                           // called when the answer of reason has changed
	log     *slog.Logger

	of      atomic.Pointer[datadir.FormerCluster]
	hearing sync.Mutex // one call at a time
}

func newFormer(c *Cluster) *former {
	return &former{
		self: c.self, node: c.node, alone: c.cfg.foundsAlone(), log: c.log,
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
	switch made := f.self.madeCluster(); {
	case f.node.empty():
		return f.alone && (made || f.self.cluster() == "")
	case made:
		at, _ := f.members()
		return at == foundingIndex && len(f.node.servers()) == 1
	}
	return false
}

// reason says why this server must not be asked anything; "" while it may be.
func (f *former) reason() string {
	of := f.of.Load()
	if of == nil || of.Own != f.self.cluster() || of.Own == "" && !f.alone {
		return ""
	}
	did, mistaken := "founds none", ""
	if of.Own != "" {
		did = "has founded cluster " + of.Own + " meanwhile, which is not that one"
		mistaken = ". If that cluster is mistaken, and the state here is the right one: " +
			"storage_controller rescue --force"
	}
	return fmt.Sprintf("%s at %s of cluster %s takes this server for its member %s; it was a "+
		"member of it and has lost its disk, and %s. Stop it, move its data directory away, start "+
		"it with another --server-id and --join %s, and have it take the place of %s "+
		"(storcon_cli cluster replace %s NEW-ID)%s", of.Server, of.RaftAddr, of.Cluster,
		of.Member, did, of.RaftAddr, of.Member, of.Member, mistaken)
}
