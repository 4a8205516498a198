package controller

import (
	"context"
	"errors"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// AttachHook numbers an attachment that somebody makes on a pageserver by
// themselves, or takes note of a detach. Unknown shards are created. Nothing is
// sent to any pageserver.
//
// The entry is never named: two attachments are two, even under one request id.
func (t *Tenants) AttachHook(
	ctx context.Context, req neon.AttachHookRequest,
) (resp neon.AttachHookResponse, err error) {
	c := fsm.AttachUnmanaged{Shard: req.Shard, At: time.Now().UnixMilli()}
	if req.Node != nil {
		c.Node = *req.Node
		if c.Node == 0 {
			return resp, neon.Errorf(neon.Internal, "Node 0 not registered")
		}
	}
	if req.GenerationOverride != nil {
		c.Generation = *req.GenerationOverride
	}
	if req.Config != nil {
		c.Config = *req.Config
	}
	if err := thaw(ctx, t.Log, req.Shard.Tenant); err != nil {
		return resp, asInternal(err)
	}
	r, err := t.Log.Propose(ctx, fsm.RequestID{}, c)
	if err != nil {
		return resp, asInternal(err)
	}
	for _, g := range r.Grants {
		resp.Generation = &g.Generation
	}
	t.Logger.Info("Attached by hand", "shard", req.Shard.String(), "node", c.Node.String(),
		"generation", resp.Generation)
	return resp, nil
}

// asInternal makes a refusal an error of the server: clients of such a route know
// no others.
func asInternal(err error) error {
	var e *neon.Error
	if errors.As(err, &e) {
		switch e.Code {
		case neon.BadRequest, neon.NotFound, neon.Conflict, neon.PreconditionFailed:
			return &neon.Error{Code: neon.Internal, Msg: e.Msg, Err: err}
		}
	}
	return err
}

// Drop forgets a tenant without telling any pageserver. An unknown one is no error.
func (t *Tenants) Drop(ctx context.Context, id neon.TenantID) error {
	_, err := commit(ctx, t.Log, func(s *fsm.State) (fsm.Command, error) {
		if _, ok := s.Tenant(id); !ok {
			return nil, nil
		}
		return fsm.DropTenant{ID: id}, nil
	})
	return err
}

// byHand tells whether anything of a tenant is attached by hand. Whoever configures
// it here, be it as it is, wants it to be cared for.
func byHand(s *fsm.State, tenant fsm.Tenant) bool {
	for sh := range s.TenantShards(tenant.ID) {
		if sh.Unmanaged {
			return true
		}
	}
	return false
}
