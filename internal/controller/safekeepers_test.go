package controller

import (
	"context"
	"strings"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

func upsert(id int64) neon.SafekeeperUpsert {
	return neon.SafekeeperUpsert{
		ID: id, Region: "here", Version: 7, Host: "sk", Port: 5454, HTTPPort: 7676, AZ: "a",
	}
}

func TestSafekeepersAreRegisteredAndUpdated(t *testing.T) {
	w := newWorld(t, 0)
	k := NewSafekeepers(w.Deps)
	for _, id := range []neon.NodeID{2, 1} {
		if err := k.Upsert(t.Context(), id, upsert(int64(id))); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.SetScheduling(t.Context(), 2, neon.SafekeeperPause); err != nil {
		t.Fatal(err)
	}
	moved := upsert(2)
	moved.Host, moved.HTTPSPort = "elsewhere", new(uint16(7677))
	if err := k.Upsert(t.Context(), 2, moved); err != nil {
		t.Fatal(err)
	}
	all, err := k.List(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if s := all[0]; s.ID != 1 || s.Scheduling != neon.SafekeeperActivating || s.Host != "sk" ||
		s.HTTPSPort != nil || s.Port != 5454 || s.HTTPPort != 7676 || s.AZ != "a" ||
		s.Region != "here" || s.Version != 7 {
		t.Errorf("safekeeper 1 is %+v", s)
	}
	// An update keeps the policy, which an operator has set.
	if s := all[1]; s.ID != 2 || s.Scheduling != neon.SafekeeperPause || s.Host != "elsewhere" ||
		*s.HTTPSPort != 7677 {
		t.Errorf("safekeeper 2 is %+v", s)
	}
	one, err := k.Describe(t.Context(), 1)
	if err != nil || one != all[0] {
		t.Errorf("%+v, %v", one, err)
	}
	proposed := len(w.log.Proposed())
	if err := k.SetScheduling(t.Context(), 2, neon.SafekeeperPause); err != nil {
		t.Error(err)
	}
	if len(w.log.Proposed()) != proposed {
		t.Error("a policy that is set already was proposed")
	}
}

func TestASafekeeperIsSettledOnce(t *testing.T) {
	w := newWorld(t, 0)
	w.log.Upgrade(t)
	k := NewSafekeepers(w.Deps)
	w.refuses(neon.NotFound, "unknown instance id", func(ctx context.Context) error {
		return k.Settle(ctx, 1)
	})
	w.log.Must(fsm.UpsertSafekeeper{ID: 1})
	w.log.Must(fsm.SetSafekeeperScheduling{Safekeeper: 1, To: neon.SafekeeperDecomissioned})
	for range 2 {
		if err := k.Settle(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := k.Describe(t.Context(), 1); err != nil || !d.Gone {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestSafekeeperRequestsAreRefusedWithoutATrace(t *testing.T) {
	w := newWorld(t, 0)
	w.Options.UseHTTPSSafekeepers = true
	k := NewSafekeepers(w.Deps)
	for name, c := range map[string]struct {
		id     neon.NodeID
		change func(*neon.SafekeeperUpsert)
		code   neon.Code
		text   string
	}{
		"another id": {
			1, func(r *neon.SafekeeperUpsert) { r.ID = 2 }, neon.BadRequest,
			"id mismatch: url=1, body=2",
		},
		"id 0": {
			0, func(r *neon.SafekeeperUpsert) { r.ID = 0 }, neon.BadRequest,
			"id not allowed to be zero or negative: 0",
		},
		"no port for https": {
			1, func(r *neon.SafekeeperUpsert) { r.HTTPSPort = nil }, neon.PreconditionFailed,
			"cannot upsert safekeeper 1: https is enabled, but https port is not specified",
		},
		"negative version": {
			1, func(r *neon.SafekeeperUpsert) { r.Version = -1 }, neon.Internal,
			"negative version: -1",
		},
	} {
		req := upsert(1)
		req.HTTPSPort = new(uint16(1))
		c.change(&req)
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.refuses(c.code, c.text, func(ctx context.Context) error {
				return k.Upsert(ctx, c.id, req)
			})
		})
	}
	w.t = t
	w.refuses(neon.NotFound, "unknown instance id", func(ctx context.Context) error {
		_, err := k.Describe(ctx, 1)
		return err
	})
	w.refuses(neon.Internal, "unexpected number of rows (0)", func(ctx context.Context) error {
		return k.SetScheduling(ctx, 1, neon.SafekeeperActive)
	})
	long := upsert(1)
	long.HTTPSPort, long.Host = new(uint16(1)), strings.Repeat("x", 256)
	w.fails(neon.BadRequest, "more than 255 bytes", func(ctx context.Context) error {
		return k.Upsert(ctx, 1, long)
	})
	if all, err := k.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	w.unreadable(map[string]func(context.Context) error{
		"list":     func(ctx context.Context) error { _, err := k.List(ctx); return err },
		"describe": func(ctx context.Context) error { _, err := k.Describe(ctx, 1); return err },
		"policy": func(ctx context.Context) error {
			return k.SetScheduling(ctx, 1, neon.SafekeeperActive)
		},
	})
}
