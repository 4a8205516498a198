package controller

import (
	"context"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// Nodes registers and configures pageservers.
type Nodes struct{ Deps }

// NewNodes makes a Nodes.
func NewNodes(d Deps) *Nodes { return &Nodes{d} }

// Register adds a pageserver, or repeats or updates what is known of it. A host
// name that is new must have an address.
func (n *Nodes) Register(ctx context.Context, req neon.NodeRegister) error {
	if err := req.ID.Check(); err != nil {
		return err
	}
	cmd := registerCommand(req)
	s, err := n.Log.ReadState(ctx)
	if err != nil {
		return err
	}
	old, known := s.Node(cmd.ID)
	same := known && !old.Tombstone && sameAddress(old, cmd)
	switch {
	case decide.Done(ctx, s):
		return nil
	case same && old.Addr == cmd.Addr && !halfGRPC(req):
		return decide.NoteUnchanged(ctx, n.Log)
	}
	if same || !known {
		if err := n.admit(ctx, req); err != nil {
			return err
		}
	}
	_, err = decide.Propose(ctx, n.Log, cmd)
	return err
}

// sameAddress reports whether a registration may update a known node.
func sameAddress(old fsm.Node, c fsm.RegisterNode) bool {
	return old.Addr.HTTPHost == c.Addr.HTTPHost && old.Addr.HTTPPort == c.Addr.HTTPPort &&
		old.Addr.PGHost == c.Addr.PGHost && old.Addr.PGPort == c.Addr.PGPort && old.AZ == c.AZ
}

// admit checks a registration that adds or changes something. A node that is registered
// already as it asks is not checked, although the configuration may not admit it any more.
func (n *Nodes) admit(ctx context.Context, req neon.NodeRegister) error {
	if err := n.Resolve(ctx, req.HTTPAddr); err != nil {
		return neon.Errorf(neon.Unavailable, "Node %d tried to register with unknown DNS name '%s'",
			req.ID, req.HTTPAddr)
	}
	if n.Options.UseHTTPS && (req.HTTPSPort == nil || *req.HTTPSPort == 0) {
		return neon.Errorf(neon.PreconditionFailed,
			"Node %d has no https port, but use_https is enabled", req.ID)
	}
	if halfGRPC(req) {
		return neon.Errorf(neon.BadRequest, "must specify both gRPC address and port")
	}
	return nil
}

func halfGRPC(req neon.NodeRegister) bool { return (req.GRPCAddr == nil) != (req.GRPCPort == nil) }

func registerCommand(req neon.NodeRegister) fsm.RegisterNode {
	c := fsm.RegisterNode{ID: req.ID, AZ: req.AZ, Addr: fsm.NodeAddr{
		HTTPHost: req.HTTPAddr, HTTPPort: req.HTTPPort, PGHost: req.PgAddr, PGPort: req.PgPort,
	}}
	if req.HTTPSPort != nil {
		c.Addr.HTTPSPort = *req.HTTPSPort
	}
	if req.GRPCAddr != nil && req.GRPCPort != nil {
		c.Addr.GRPCHost, c.Addr.GRPCPort = *req.GRPCAddr, *req.GRPCPort
	}
	return c
}

// List describes all pageservers by id, from a linearizable read.
func (n *Nodes) List(ctx context.Context) ([]neon.NodeDescribe, error) {
	s, err := n.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	all := []neon.NodeDescribe{}
	for node := range s.Nodes() {
		all = append(all, describeRecord(node))
	}
	return all, nil
}

// Describe describes one pageserver, from a linearizable read.
func (n *Nodes) Describe(ctx context.Context, id neon.NodeID) (neon.NodeDescribe, error) {
	s, err := n.Log.ReadState(ctx)
	if err != nil {
		return neon.NodeDescribe{}, err
	}
	node, ok := s.Node(id)
	if !ok || node.Tombstone {
		return neon.NodeDescribe{}, notRegistered(id)
	}
	return describeRecord(&node), nil
}

func notRegistered(id neon.NodeID) error {
	return neon.Errorf(neon.NotFound, "Node %d not registered", id)
}

func describeRecord(n *fsm.Node) neon.NodeDescribe {
	return neon.NodeDescribe{
		ID: n.ID, Availability: n.Availability, Scheduling: n.Scheduling, AZ: n.AZ.String(),
		HTTPAddr: n.Addr.HTTPHost, HTTPPort: n.Addr.HTTPPort,
		HTTPSPort: portOrNull(n.Addr.HTTPSPort),
		PgAddr:    n.Addr.PGHost, PgPort: n.Addr.PGPort,
		GRPCAddr: textOrNull(n.Addr.GRPCHost), GRPCPort: portOrNull(n.Addr.GRPCPort),
	}
}

// Configure sets the scheduling policy and then the availability of a pageserver. Before
// one that was not active becomes active, what should not be on it is detached. The
// request is refused while a long operation runs on the node, or on another node unless
// the client expects that.
func (n *Nodes) Configure(ctx context.Context, req neon.NodeConfigure, others Others) error {
	before, err := n.Log.ReadState(ctx)
	if err != nil {
		return err
	}
	changes := uint32(1)
	if req.Scheduling != nil && req.Availability != nil {
		changes = 2
	}
	done := decide.DoneAll(ctx, before, changes)
	if what, runs := ongoing(before, req.ID, others); runs && !done {
		return neon.Errorf(neon.PreconditionFailed,
			"Ongoing background operation forbids configuring: %s", what)
	}
	if req.Scheduling != nil {
		if err := n.setScheduling(ctx, req.ID, *req.Scheduling); err != nil {
			return err
		}
	}
	s, err := n.Log.ReadState(ctx)
	if err != nil {
		return err
	}
	node, ok := s.Node(req.ID)
	if !ok || node.Tombstone {
		return notRegistered(req.ID)
	}
	switch {
	case req.Availability == nil:
		return nil
	case node.Availability == *req.Availability:
		return decide.NoteUnchanged(ctx, n.Log)
	case *req.Availability == neon.NodeActive:
		return decide.Once(ctx, n.Log, func() error {
			return n.Deps.Nodes.ActivateNode(ctx, req.ID)
		})
	}
	_, err = decide.Propose(ctx, n.Log, fsm.SetNodeAvailability{
		Verdicts: []fsm.Verdict{{Node: req.ID, To: *req.Availability}},
	})
	return err
}

func (n *Nodes) setScheduling(ctx context.Context, id neon.NodeID, to neon.NodeScheduling) error {
	_, err := decide.Commit(ctx, n.Log, func(s *fsm.State) (fsm.Command, error) {
		node, ok := s.Node(id)
		if !ok || node.Tombstone {
			return nil, neon.Errorf(neon.Internal, "Node %d not found for update", id)
		}
		if node.Scheduling == to {
			return nil, nil
		}
		return fsm.SetNodeScheduling{Node: id, Scheduling: to}, nil
	})
	return err
}

// Shards lists the shards that are or should be on a node, by id. An unknown node has
// none.
func (n *Nodes) Shards(ctx context.Context, id neon.NodeID) (neon.NodeShards, error) {
	s, err := n.Log.ReadState(ctx)
	if err != nil {
		return neon.NodeShards{}, err
	}
	out := neon.NodeShards{ID: id, Shards: []neon.NodeShard{}}
	ids := n.Reality.SeenOn(id)
	for sh := range s.NodeShards(id) {
		ids = append(ids, sh.ID)
	}
	slices.SortFunc(ids, neon.ShardID.Compare)
	for _, shard := range slices.Compact(ids) {
		sh, ok := s.Shard(shard)
		if !ok {
			continue
		}
		e := neon.NodeShard{Shard: sh.ID}
		if sh.Intends(id) {
			e.IntendedSecondary = new(sh.HasSecondary(id))
		}
		if conf := n.Reality.Status(sh.ID).Observed[id]; conf != nil {
			e.ObservedSecondary = new(conf.Mode == neon.Secondary)
		}
		if e.IntendedSecondary != nil || e.ObservedSecondary != nil {
			out.Shards = append(out.Shards, e)
		}
	}
	return out, nil
}
