package controller

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

func pass(timelines *Timelines, id neon.ShardID, path string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := timelines.Passthrough(ctx, id, "GET", path)
		return err
	}
}

// The owner of the newest generation answers, and gets the shard's id in place of the
// tenant's, wherever that stands.
func TestARequestIsPassedToTheOwnerOfTheNewestGeneration(t *testing.T) {
	w := newWorld(t, 3)
	ids := w.tenant(tenantOne, 2)
	w.log.Must(fsm.SetIntents{Intents: []fsm.Intent{
		{Shard: ids[1], Sequence: w.shard(ids[1]).Sequence, Attached: 3},
	}})
	w.calls.through = func(string) (*http.Response, error) {
		return response(http.StatusTeapot, "body"), nil
	}
	timelines, _ := w.timelines()
	tenant, query := tenantOne.String(), "/timeline?of="+tenantOne.String()
	for id, want := range map[neon.ShardID]string{
		neon.Unsharded(tenantOne): "on 1: DELETE /v1/tenant/" + ids[0].String() +
			"/timeline?of=" + ids[0].String(),
		ids[1]: "on 2: DELETE /v1/tenant/" + ids[1].String() + "/timeline?of=" + ids[1].String(),
	} {
		a, err := timelines.Passthrough(t.Context(), id, "DELETE", "/v1/tenant/"+tenant+query)
		if err != nil || a.Status != http.StatusTeapot || string(a.Body) != "body" ||
			a.Header.Get("X-From") != "pageserver" {
			t.Errorf("%+v, %v", a, err)
		}
		equal(t, id.String(), w.calls.took(), []string{want})
	}
}

func TestPassedRequestsAreRefusedWithoutACall(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	put := w.detached(neon.TenantID{2})
	gone := w.tenant(neon.TenantID{3}, 1)[0]
	w.log.Must(fsm.BeginDeleteTenant{ID: gone.Tenant})
	w.log.Must(fsm.CreateTenant{
		ID: neon.TenantID{4}, Count: 1, Stripe: 8, Policy: neon.Attached(0),
		Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}},
	})
	timelines, _ := w.timelines()
	unknown := neon.TenantID{9}
	wrong := neon.ShardID{Tenant: tenantOne, Number: 1, Count: 2}
	for _, c := range []struct {
		id   neon.ShardID
		code neon.Code
		text string
	}{
		{neon.Unsharded(unknown), neon.NotFound, "Tenant " + unknown.String() + " not found"},
		{wrong, neon.NotFound, "Tenant " + wrong.String() + " not found"},
		{gone, neon.NotFound, "Tenant " + gone.Tenant.String() + " not found"},
		{put, neon.Conflict, "Cannot call timeline API on non-attached tenant"},
		{
			neon.Unsharded(neon.TenantID{4}), neon.Unavailable,
			"One or more shards in tenant is not yet attached",
		},
	} {
		w.refuses(c.code, c.text, pass(timelines, c.id, "/"))
	}
	w.unreadable(map[string]func(context.Context) error{
		"pass": pass(timelines, neon.Unsharded(tenantOne), "/"),
	})
	if calls := w.calls.took(); len(calls) > 0 {
		t.Errorf("asked %q", calls)
	}
}

func TestAnswersThatAreNotTheOwnersAreErrors(t *testing.T) {
	broken := func(r io.Reader) *http.Response {
		a := response(200, "")
		a.Body = io.NopCloser(r)
		return a
	}
	missing := `{"msg":"NotFound: tenant ` + tenantOne.String() + `-0001"}`
	for name, c := range map[string]struct {
		answer *http.Response
		err    error
		code   neon.Code
		text   string
	}{
		"no answer": {
			nil, errors.New("refused"), neon.Unavailable,
			"Error sending pageserver API request to 1 (ps): refused",
		},
		"an answer that is cut off": {
			broken(io.MultiReader(strings.NewReader("x"), failing{})), nil, neon.Unavailable,
			"Error sending pageserver API request to 1 (ps): cut off",
		},
		"an answer without an end": {
			broken(endless{}), nil, neon.Internal,
			"Answer of pageserver 1 (ps) is larger than 67108864 bytes",
		},
		"a location that is gone": {
			response(404, missing), nil, neon.Unavailable,
			"Pageserver 1 (ps) returned tenant 404 due to ongoing migration, retry later",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.tenant(tenantOne, 1)
			w.calls.through = func(string) (*http.Response, error) { return c.answer, c.err }
			timelines, _ := w.timelines()
			w.refuses(c.code, c.text, pass(timelines, neon.Unsharded(tenantOne), "/"))
		})
	}
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	timelines, _ := w.timelines()
	// Another 404 is the answer, as is a 503 that speaks of the tenant.
	for status, body := range map[int]string{404: "NotFound: timeline", 503: missing} {
		w.calls.through = func(string) (*http.Response, error) {
			return response(status, body), nil
		}
		a, err := timelines.Passthrough(t.Context(), neon.Unsharded(tenantOne), "GET", "/")
		if err != nil || a.Status != status || string(a.Body) != body {
			t.Errorf("%+v, %v", a, err)
		}
	}
	// An answer of a location that was superseded meanwhile may be out of date.
	w.calls.through = func(string) (*http.Response, error) {
		w.log.Must(fsm.ReAttach{Node: 1})
		return response(200, "old"), nil
	}
	w.fails(neon.Unavailable, "Tenant attachment changed, please retry",
		pass(timelines, neon.Unsharded(tenantOne), "/"))
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cut off") }

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }
