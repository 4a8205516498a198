package controller

import (
	"context"
	"errors"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

// register is the registration of a node that AddNodes has added.
func register(id neon.NodeID) neon.NodeRegister {
	return neon.NodeRegister{
		ID: id, AZ: neon.MakeAZ("a"), HTTPAddr: "ps", HTTPPort: uint16(9000 + id), PgAddr: "ps",
		PgPort: uint16(6400 + id),
	}
}

func TestARegistrationAddsUpdatesOrRepeats(t *testing.T) {
	w := newWorld(t, 1)
	n := NewNodes(w.Deps)
	if err := n.Register(t.Context(), register(1)); err != nil {
		t.Fatal(err)
	}
	if p := w.log.Proposed(); len(p) > 0 {
		t.Errorf("a repeated registration proposed %+v", p)
	}
	https := register(1)
	https.HTTPSPort, https.GRPCAddr, https.GRPCPort = new(uint16(9443)), new("grpc"),
		new(uint16(50051))
	if err := n.Register(t.Context(), https); err != nil {
		t.Fatal(err)
	}
	if err := n.Register(t.Context(), register(2)); err != nil {
		t.Fatal(err)
	}
	got, err := n.List(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	first := got[0]
	if first.ID != 1 || *first.HTTPSPort != 9443 || *first.GRPCAddr != "grpc" ||
		*first.GRPCPort != 50051 || first.AZ != "a" || first.HTTPPort != 9001 ||
		first.PgPort != 6401 || first.Availability != neon.NodeActive {
		t.Errorf("node 1 is %+v", first)
	}
	// One that is new has to answer before it is used.
	if s := got[1]; s.ID != 2 || s.HTTPSPort != nil || s.GRPCAddr != nil || s.GRPCPort != nil ||
		s.Availability != neon.NodeOffline || s.Scheduling != neon.SchedulingActive {
		t.Errorf("node 2 is %+v", s)
	}
	if d, err := n.Describe(t.Context(), 2); err != nil || d != got[1] {
		t.Errorf("%+v, %v", d, err)
	}
	w.fails(neon.NotFound, "Node 3 not registered", func(ctx context.Context) error {
		_, err := n.Describe(ctx, 3)
		return err
	})
}

func TestRegistrationsAreRefusedWithoutATrace(t *testing.T) {
	change := func(id neon.NodeID, f func(*neon.NodeRegister)) neon.NodeRegister {
		r := register(id)
		f(&r)
		return r
	}
	w := newWorld(t, 2)
	w.Options.UseHTTPS = true
	w.Resolve = func(_ context.Context, host string) error {
		if host == "nowhere" {
			return errors.New("no such host")
		}
		return nil
	}
	n := NewNodes(w.Deps)
	for name, c := range map[string]struct {
		req  neon.NodeRegister
		code neon.Code
		text string
	}{
		"id 0": {register(0), neon.BadRequest, "node id 0 is reserved"},
		"an id that is too large": {
			register(neon.MaxNodeID + 1), neon.BadRequest,
			"node id 9223372036854775808 is too large: at most 9223372036854775807 can be used",
		},
		"a new node without a port for https": {
			register(3), neon.PreconditionFailed,
			"Node 3 has no https port, but use_https is enabled",
		},
		"port 0 for https": {
			change(3, func(r *neon.NodeRegister) { r.HTTPSPort = new(uint16(0)) }),
			neon.PreconditionFailed, "Node 3 has no https port",
		},
		"a new node with an address but no port for gRPC": {
			change(3, func(r *neon.NodeRegister) {
				r.HTTPSPort, r.GRPCAddr = new(uint16(1)), new("grpc")
			}), neon.BadRequest, "must specify both gRPC address and port",
		},
		"a known node with a port but no address for gRPC": {
			change(1, func(r *neon.NodeRegister) {
				r.HTTPSPort, r.GRPCPort = new(uint16(1)), new(uint16(1))
			}), neon.BadRequest, "must specify both gRPC address and port",
		},
		"a new node without an address": {
			change(3, func(r *neon.NodeRegister) { r.HTTPAddr = "nowhere" }), neon.Unavailable,
			"Node 3 tried to register with unknown DNS name 'nowhere'",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.refuses(c.code, c.text, func(ctx context.Context) error {
				return n.Register(ctx, c.req)
			})
		})
	}
	w.t = t
	// A known node at another address is refused by the log, and stays as it was.
	before := w.node(1)
	w.fails(neon.Conflict, "already registered with different address",
		func(ctx context.Context) error {
			return n.Register(ctx, change(1, func(r *neon.NodeRegister) { r.HTTPPort = 1 }))
		})
	if now := w.node(1); now.Addr != before.Addr {
		t.Errorf("node is %+v", now)
	}
	// One that is registered as it asks is admitted whatever the configuration says now.
	if err := n.Register(t.Context(), register(1)); err != nil {
		t.Error(err)
	}
}

func TestNodesAreConfigured(t *testing.T) {
	w := newWorld(t, 3)
	n := NewNodes(w.Deps)
	w.verdict(2, neon.NodeOffline)
	var activated []neon.NodeID
	w.reality.activate = func(_ context.Context, id neon.NodeID) error {
		activated = append(activated, id)
		return nil
	}
	both := neon.NodeConfigure{
		ID: 1, Scheduling: new(neon.SchedulingPause), Availability: new(neon.NodeOffline),
	}
	for range 2 {
		if err := n.Configure(t.Context(), both, Exclusively); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.node(1); got.Scheduling != neon.SchedulingPause ||
		got.Availability != neon.NodeOffline || len(w.log.Proposed()) != 2 {
		t.Errorf("node is %+v after %v", got, w.log.Proposed())
	}
	// The leader detaches what should not be on a node before it becomes active.
	for _, id := range []neon.NodeID{2, 3} {
		active := neon.NodeConfigure{ID: id, Availability: new(neon.NodeActive)}
		if err := n.Configure(t.Context(), active, Exclusively); err != nil {
			t.Error(err)
		}
	}
	equal(t, "activated", activated, []neon.NodeID{2})
	if got := w.node(2); got.Availability != neon.NodeOffline {
		t.Errorf("the verdict is the leader's to commit, and node 2 is %s", got.Availability)
	}
	w.reality.activate = func(context.Context, neon.NodeID) error {
		return neon.Errorf(neon.Unavailable, "no answer")
	}
	w.fails(neon.Unavailable, "no answer", func(ctx context.Context) error {
		return n.Configure(ctx, neon.NodeConfigure{ID: 2, Availability: new(neon.NodeActive)},
			Exclusively)
	})
}

func TestConfigurationsOfNodesAreRefusedWithoutATrace(t *testing.T) {
	w := newWorld(t, 2)
	n := NewNodes(w.Deps)
	pause := func(id neon.NodeID) neon.NodeConfigure {
		return neon.NodeConfigure{ID: id, Scheduling: new(neon.SchedulingPause)}
	}
	w.refuses(neon.NotFound, "Node 9 not registered", func(ctx context.Context) error {
		return n.Configure(ctx, neon.NodeConfigure{ID: 9}, Exclusively)
	})
	w.refuses(neon.Internal, "Node 9 not found for update", func(ctx context.Context) error {
		return n.Configure(ctx, pause(9), Exclusively)
	})
	w.begin(1, fsm.OperationDrain)
	for id, others := range map[neon.NodeID]Others{1: Concurrently, 2: Exclusively} {
		w.refuses(neon.PreconditionFailed,
			"Ongoing background operation forbids configuring: drain 1",
			func(ctx context.Context) error { return n.Configure(ctx, pause(id), others) })
	}
	if err := n.Configure(t.Context(), pause(2), Concurrently); err != nil {
		t.Errorf("a client that expects operations on other nodes: %v", err)
	}
	w.unreadable(map[string]func(context.Context) error{
		"configure": func(ctx context.Context) error { return n.Configure(ctx, pause(1), Exclusively) },
		"register":  func(ctx context.Context) error { return n.Register(ctx, register(7)) },
		"list":      func(ctx context.Context) error { _, err := n.List(ctx); return err },
		"describe":  func(ctx context.Context) error { _, err := n.Describe(ctx, 1); return err },
		"shards":    func(ctx context.Context) error { _, err := n.Shards(ctx, 1); return err },
	})
}
