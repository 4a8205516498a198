package controller

import (
	"context"
	"strconv"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// Upcalls answers the pageservers: which locations they have to hold when they start, and
// which generations are still the newest.
type Upcalls struct {
	Deps
	nodes *Nodes
}

// NewUpcalls makes an Upcalls.
func NewUpcalls(d Deps) *Upcalls { return &Upcalls{Deps: d, nodes: NewNodes(d)} }

// namedShards is how many shards a line of the log names at most.
const namedShards = 16

// ReAttach is the start of a pageserver. Every shard whose newest generation it
// had been issued gets the next one, in one entry. One that has no number left is left
// out.
func (u *Upcalls) ReAttach(
	ctx context.Context, req neon.ReAttachRequest,
) (resp neon.ReAttachResponse, err error) {
	if req.Register != nil {
		if err := u.nodes.Register(decide.Part(ctx, "register"), *req.Register); err != nil {
			return resp, err
		}
	}
	r, err := u.start(ctx, req.Node)
	if err != nil {
		return resp, err
	}
	if u.Options.HandleDiskLoss && req.EmptyLocalDisk != nil && *req.EmptyLocalDisk {
		u.Nodes.ReAttachedEmpty(req.Node)
	} else {
		u.Nodes.ReAttached(req.Node)
	}
	u.Logger.Info("Pageserver re-attached", "node", req.Node.String(), "shards", len(r.ReAttached))
	if n := len(r.LeftOut); n > 0 {
		u.Logger.Warn("Shards cannot be attached again: all their generations are used up",
			"node", req.Node.String(), "number", n, "shards", r.LeftOut[:min(n, namedShards)])
	}

	resp.Tenants = make([]neon.ReAttachTenant, 0, len(r.ReAttached))
	for _, l := range r.ReAttached {
		t := neon.ReAttachTenant{Shard: l.Shard, Mode: l.Mode, StripeSize: l.Stripe}
		if l.Mode == neon.AttachedSingle {
			t.Gen = &l.Generation
		}
		resp.Tenants = append(resp.Tenants, t)
	}
	return resp, nil
}

// start numbers what a pageserver that starts has to attach. A further try of the same
// request numbers it once more, since the answer to the one before may be lost: to skip a
// number is harmless. But it does so only if the pageserver has not started again since.
// The numbers of that start would be taken from it, and nobody would use the new ones.
func (u *Upcalls) start(ctx context.Context, node neon.NodeID) (r fsm.Result, err error) {
	for range decide.Tries {
		s, err := u.Log.ReadState(ctx)
		if err != nil {
			return r, err
		}
		n, _ := s.Node(node)
		c := fsm.ReAttach{Node: node, Incarnation: n.Incarnation + 1}
		if fsm.Admit(s, c) != nil {
			return u.Log.Propose(ctx, fsm.RequestID{}, fsm.ReAttach{Node: node})
		}
		if startedSince(ctx, s, n.Incarnation) {
			break
		}
		r, err = u.Log.Propose(ctx, decide.RequestID(startOf(ctx, c.Incarnation)), c)
		if neon.CodeOf(err) != neon.Conflict || err == nil {
			return r, err
		}
	}
	return r, neon.Errorf(neon.Conflict, "Node %d has started again since", node)
}

// rememberedStarts is how many starts a further try looks back.
const rememberedStarts = 8

// startedSince reports whether a pageserver started again after an earlier try had numbered
// what it has to attach.
func startedSince(ctx context.Context, s *fsm.State, incarnation uint64) bool {
	for back := range min(incarnation, rememberedStarts) {
		if _, ours := decide.Done(startOf(ctx, incarnation-back), s); ours {
			return back > 0
		}
	}
	return false
}

func startOf(ctx context.Context, incarnation uint64) context.Context {
	return decide.Part(ctx, "start "+strconv.FormatUint(incarnation, 10))
}

// Validate says of each shard whether the generation is the newest. The state is
// read after the request came, and holds everything that was acknowledged until
// then. So a replica that lags behind, or that does not lead any more, never says yes
// to a generation that has a newer one. Unknown shards are left out.
func (u *Upcalls) Validate(
	ctx context.Context, req neon.ValidateRequest,
) (resp neon.ValidateResponse, err error) {
	s, err := u.Log.ReadState(ctx)
	if err != nil {
		return resp, err
	}
	resp.Tenants = make([]neon.ValidatedTenant, 0, len(req.Tenants))
	for _, t := range req.Tenants {
		sh, ok := s.Shard(t.Shard)
		if !ok {
			continue
		}
		resp.Tenants = append(resp.Tenants, neon.ValidatedTenant{
			Shard: t.Shard, Valid: sh.HasGeneration && sh.Generation == t.Gen,
		})
	}
	return resp, nil
}
