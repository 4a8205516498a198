package controller

import (
	"context"

	"quorate/api/neon"
	"quorate/fsm"
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
//
// The entry has no request id: two starts of a process are two, even if a client gave them
// one request id. To skip a number is harmless, to use one twice is not.
func (u *Upcalls) ReAttach(
	ctx context.Context, req neon.ReAttachRequest,
) (resp neon.ReAttachResponse, err error) {
	if req.Register != nil {
		if err := u.nodes.Register(ctx, *req.Register); err != nil {
			return resp, err
		}
	}
	r, err := u.Log.Propose(ctx, fsm.RequestID{}, fsm.ReAttach{Node: req.Node})
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
	for i := range r.ReAttached {
		l := &r.ReAttached[i]
		t := neon.ReAttachTenant{Shard: l.Shard, Mode: l.Mode, StripeSize: l.Stripe}
		if l.Mode == neon.AttachedSingle {
			t.Gen = &l.Generation
		}
		resp.Tenants = append(resp.Tenants, t)
	}
	return resp, nil
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
