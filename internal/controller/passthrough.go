package controller

import (
	"context"
	"io"
	"net/http"
	"strings"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/fanout"
)

// Answer is the answer of a pageserver to a request that was passed through.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// passedBody bounds the body of an answer that is passed through, in bytes.
const passedBody = 64 << 20

// Passthrough sends a request to the owner of a shard and returns its answer. A tenant's
// id stands for its first shard. Only method, path and query are sent, and in these every
// occurrence of the tenant's id is replaced by that of the shard.
func (t *Timelines) Passthrough(
	ctx context.Context, id neon.ShardID, method, pathAndQuery string,
) (a Answer, err error) {
	find := func(s *fsm.State) ([]fanout.Owner, error) {
		o, err := t.target(s, id)
		return []fanout.Owner{o}, err
	}
	err = fanout.Guard(ctx, t.Log, find, func(owners []fanout.Owner) error {
		a, err = t.pass(ctx, owners[0], method, pathAndQuery)
		return err
	})
	return a, err
}

func (t *Timelines) target(s *fsm.State, id neon.ShardID) (fanout.Owner, error) {
	tenant, ok := s.Tenant(id.Tenant)
	if !ok || tenant.Deleting {
		return fanout.Owner{}, neon.Errorf(neon.NotFound, "Tenant %s not found", id.Tenant)
	}
	if id.IsUnsharded() {
		id = tenant.Shards()[0]
	}
	sh, ok := s.Shard(id)
	switch {
	case !ok:
		return fanout.Owner{}, neon.Errorf(neon.NotFound, "Tenant %s not found", id)
	case sh.Attached == 0:
		return fanout.Owner{}, neon.Errorf(neon.Conflict,
			"Cannot call timeline API on non-attached tenant")
	}
	return fanout.OwnerOf(s, tenant, sh)
}

func (t *Timelines) pass(
	ctx context.Context, o fanout.Owner, method, pathAndQuery string,
) (a Answer, err error) {
	path := strings.ReplaceAll(pathAndQuery, o.Shard.Tenant.String(), o.Shard.String())
	name := o.Name()
	resp, err := t.Pageservers.Passthrough(ctx, &o.Node, method, path)
	if err != nil {
		return a, neon.Errorf(neon.Unavailable, "Error sending pageserver API request to %s: %w",
			name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, passedBody+1))
	switch {
	case err != nil:
		return a, neon.Errorf(neon.Unavailable, "Error sending pageserver API request to %s: %w",
			name, err)
	case len(body) > passedBody:
		return a, neon.Errorf(neon.Internal, "Answer of pageserver %s is larger than %d bytes",
			name, passedBody)
	}
	if resp.StatusCode == http.StatusNotFound &&
		strings.Contains(string(body), "tenant "+o.Shard.Tenant.String()) {
		return a, neon.Errorf(neon.Unavailable,
			"Pageserver %s returned tenant 404 due to ongoing migration, retry later", name)
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}
