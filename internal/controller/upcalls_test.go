package controller

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// A process that starts gets the next number of every shard that it owns, and its
// secondaries without one.
func TestAReAttachIssuesTheNextNumberOfEveryShard(t *testing.T) {
	w := newWorld(t, 2)
	ids := w.tenant(tenantOne, 2)
	w.log.Must(fsm.CreateTenant{
		ID: neon.TenantID{2}, Count: 1, Stripe: 16, Policy: neon.Attached(1),
		Scheduling: neon.ShardActive,
		Shards:     []fsm.NewShard{{Attached: 2, Secondary: []neon.NodeID{1}}},
	})
	u := NewUpcalls(w.Deps)
	// Two starts are two, also when a proxy gave them one request id.
	ctx := decide.WithRequest(t.Context(), [32]byte{1})
	for _, want := range []neon.Generation{2, 3} {
		resp, err := u.ReAttach(ctx, neon.ReAttachRequest{Node: 1})
		if err != nil || len(resp.Tenants) != 2 {
			t.Fatalf("%+v, %v", resp, err)
		}
		if a := resp.Tenants[0]; a.Shard != ids[0] || *a.Gen != want ||
			a.Mode != neon.AttachedSingle || a.StripeSize != 8 {
			t.Errorf("%+v", a)
		}
		if b := resp.Tenants[1]; b.Shard.Tenant != (neon.TenantID{2}) || b.Gen != nil ||
			b.Mode != neon.Secondary || b.StripeSize != 16 {
			t.Errorf("%+v", b)
		}
	}
	if sh := w.shard(ids[1]); sh.Generation != 1 {
		t.Errorf("a shard of another node is %+v", sh)
	}
	if n := len(w.reality.reAttached); n != 2 || w.reality.reAttached[1].node != 1 {
		t.Errorf("the leader heard %+v", w.reality.reAttached)
	}
}

// A shard that has no number left is left out of a re-attach, which says so.
func TestAReAttachNamesWhatItLeavesOut(t *testing.T) {
	w := newWorld(t, 1)
	ids := w.tenant(tenantOne, 1)
	used := neon.Unsharded(neon.TenantID{2})
	w.log.Must(fsm.CreateTenant{ // as the first version takes it
		ID: used.Tenant, Stripe: 8, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Generation: math.MaxUint32 - 1, Shards: []fsm.NewShard{{Attached: 1}},
	})
	w.log.Attach(t, used.Tenant)
	w.log.Upgrade(t)
	var lines bytes.Buffer
	w.Logger = slog.New(slog.NewTextHandler(&lines, nil))
	resp, err := NewUpcalls(w.Deps).ReAttach(t.Context(), neon.ReAttachRequest{Node: 1})
	if err != nil || len(resp.Tenants) != 1 || resp.Tenants[0].Shard != ids[0] {
		t.Errorf("%+v, %v", resp, err)
	}
	if want := `level=WARN msg="Shards cannot be attached again: all their generations are used up" node=1 number=1 shards=[` +
		used.String() + "]"; !strings.Contains(lines.String(), want) {
		t.Errorf("it says %s", lines.String())
	}
}

func TestALostDiskIsBelievedOnlyWhereItIsConfigured(t *testing.T) {
	for _, c := range []struct {
		handle bool
		empty  *bool
		lost   bool
	}{
		{true, new(true), true}, {true, new(false), false}, {true, nil, false},
		{false, new(true), false},
	} {
		w := newWorld(t, 1)
		w.Options.HandleDiskLoss = c.handle
		_, err := NewUpcalls(w.Deps).ReAttach(t.Context(),
			neon.ReAttachRequest{Node: 1, EmptyLocalDisk: c.empty})
		if err != nil || len(w.reality.reAttached) != 1 || w.reality.reAttached[0].empty != c.lost {
			t.Errorf("%+v: %v, the leader heard %+v", c, err, w.reality.reAttached)
		}
	}
}

// A process that registers itself is registered before its locations are numbered. If
// either is refused it hears of no location, and nothing is forgotten about the node.
func TestAReAttachOfANodeThatMayNotRegisterIssuesNothing(t *testing.T) {
	w := newWorld(t, 1)
	ids := w.tenant(tenantOne, 1)
	u := NewUpcalls(w.Deps)
	other := register(1)
	other.HTTPPort = 1
	again := func(id neon.NodeID, r *neon.NodeRegister) func(context.Context) error {
		return func(ctx context.Context) error {
			resp, err := u.ReAttach(ctx, neon.ReAttachRequest{Node: id, Register: r})
			if len(resp.Tenants) > 0 {
				t.Errorf("it was given %+v", resp.Tenants)
			}
			return err
		}
	}
	w.fails(neon.Conflict, "already registered with different address", again(1, &other))
	w.fails(neon.NotFound, "", again(9, nil))
	if sh := w.shard(ids[0]); sh.Generation != 1 || len(w.reality.reAttached) > 0 {
		t.Errorf("shard is %+v, the leader heard %+v", sh, w.reality.reAttached)
	}
	two := register(2)
	if err := again(2, &two)(t.Context()); err != nil {
		t.Error(err)
	}
	if n := w.node(2); n.Addr.HTTPPort != 9002 || len(w.reality.reAttached) != 1 {
		t.Errorf("node is %+v", n)
	}
}

func TestValidateLeavesUnknownShardsOut(t *testing.T) {
	w := newWorld(t, 1)
	id := w.tenant(tenantOne, 1)[0]
	bare := neon.ShardIDs(neon.TenantID{2}, 1)[0]
	w.log.Must(fsm.CreateTenant{
		ID: bare.Tenant, Count: 1, Stripe: 8, Policy: secondaryPolicy, NoGeneration: true,
		Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Secondary: []neon.NodeID{1}}},
	})
	resp, err := NewUpcalls(w.Deps).Validate(t.Context(), neon.ValidateRequest{
		Tenants: []neon.ValidateTenant{
			{Shard: id, Gen: 1}, {Shard: id, Gen: 2}, {Shard: id, Gen: 0},
			{Shard: neon.ShardID{Tenant: neon.TenantID{9}}, Gen: 1},
			{Shard: bare, Gen: 0}, // it has no number at all
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "answer", resp.Tenants, []neon.ValidatedTenant{
		{Shard: id, Valid: true}, {Shard: id}, {Shard: id}, {Shard: bare},
	})
}

// Only the newest owner of a shard reads and writes the progress of its import.
func TestOnlyTheNewestOwnerReportsAnImport(t *testing.T) {
	w := newWorld(t, 2)
	ids := w.tenant(tenantOne, 2)
	u := NewUpcalls(w.Deps)
	status := func(id neon.ShardID, g neon.Generation) (neon.ShardImport, error) {
		return u.ImportStatus(t.Context(), neon.ImportStatusRequest{
			Shard: id, Timeline: timelineOne, Generation: g,
		})
	}
	report := func(id neon.ShardID, g neon.Generation, s neon.ShardImport) error {
		return u.ReportImport(t.Context(), neon.ImportStatusReport{
			Shard: id, Timeline: timelineOne, Generation: g, Status: s,
		})
	}
	failed := func(err error) func(context.Context) error {
		return func(context.Context) error { return err }
	}
	_, err := status(ids[0], 1)
	w.fails(neon.NotFound, "import for ", failed(err))
	w.fails(neon.NotFound, "not found", failed(report(ids[0], 1, neon.ShardImport{})))

	w.log.Must(fsm.BeginImport{Tenant: tenantOne, Timeline: timelineOne})
	progress := neon.ShardImport{Progress: neon.ImportProgress{Jobs: 4, Completed: 1}}
	if err := report(ids[0], 1, progress); err != nil {
		t.Fatal(err)
	}
	w.log.Must(fsm.ReAttach{Node: 1})
	for _, g := range []neon.Generation{0, 1, 3} {
		_, err := status(ids[0], g)
		w.fails(neon.BadRequest, "Invalid generation", failed(err))
		w.fails(neon.PreconditionFailed, "Invalid generation",
			failed(report(ids[0], g, neon.ShardImport{State: neon.ShardImportDone})))
	}
	if got, err := status(ids[0], 2); err != nil || got != progress {
		t.Errorf("%+v, %v", got, err)
	}
	unknown := neon.ShardID{Tenant: tenantOne, Count: 4}
	_, err = status(unknown, 1)
	w.fails(neon.Internal, "shard not found", failed(err))
	w.fails(neon.Internal, "shard not found", failed(report(unknown, 1, neon.ShardImport{})))

	// A terminal report never changes.
	if err := report(ids[0], 2, neon.ShardImport{State: neon.ShardImportDone}); err != nil {
		t.Fatal(err)
	}
	w.fails(neon.Internal, "Update request is unexpected", failed(report(ids[0], 2, progress)))
	if got, err := status(ids[0], 2); err != nil || got.State != neon.ShardImportDone {
		t.Errorf("%+v, %v", got, err)
	}
	w.unreadable(map[string]func(context.Context) error{
		"status": func(ctx context.Context) error {
			_, err := u.ImportStatus(ctx, neon.ImportStatusRequest{Shard: ids[0], Generation: 2})
			return err
		},
	})
}

// A pageserver may say as much as it likes. What is kept of it is text, and bounded.
func TestTheErrorOfAnImportIsCut(t *testing.T) {
	w := newWorld(t, 1)
	id := w.tenant(tenantOne, 1)[0]
	w.log.Must(fsm.BeginImport{Tenant: tenantOne, Timeline: timelineOne})
	u := NewUpcalls(w.Deps)
	text := "x" + strings.Repeat("é", keptError)
	for range 2 { // a repeated report is the same one
		if err := u.ReportImport(t.Context(), neon.ImportStatusReport{
			Shard: id, Timeline: timelineOne, Generation: 1,
			Status: neon.ShardImport{State: neon.ShardImportFailed, Error: text},
		}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := u.ImportStatus(t.Context(), neon.ImportStatusRequest{
		Shard: id, Timeline: timelineOne, Generation: 1,
	})
	if err != nil || got.State != neon.ShardImportFailed || len(got.Error) != keptError-1 ||
		!utf8.ValidString(got.Error) || !strings.HasPrefix(text, got.Error) {
		t.Errorf("%d bytes, %v", len(got.Error), err)
	}
}
