package controller

import (
	"context"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// Page selects a part of the list of tenants.
type Page struct {
	After neon.TenantID // exclusive; zero: from the first
	Limit int           // at most so many, at least one; 0: all
}

// Listing goes through a list of tenants, a part at a time. All parts are of one state,
// while what the leader sees of the shards is that of the moment.
type Listing struct {
	tenants *Tenants
	state   *fsm.State
	from    neon.TenantID
	beyond  bool // from was described already
	left    int  // at most so many are still to come; negative: all
	ended   bool

	next     neon.TenantDescribe
	attached []neon.NodeID
}

// List begins to describe tenants in the order of their ids. It runs on the leader: only
// the leader knows which of them it is reconciling.
func (t *Tenants) List(ctx context.Context, p Page) (*Listing, error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	l := &Listing{tenants: t, state: s, from: p.After, left: -1}
	l.beyond = p.After != (neon.TenantID{})
	if p.Limit > 0 {
		l.left = p.Limit
	}
	return l, nil
}

// Part describes the next tenants until each returns false. What it gets is of use until
// it returns. Part reports whether there may be more.
func (l *Listing) Part(each func(*neon.TenantDescribe) bool) bool {
	if l.ended {
		return false
	}
	for tenant := range l.state.TenantsFrom(l.from) {
		if tenant.ID == l.from && l.beyond {
			continue
		}
		l.from, l.beyond = tenant.ID, true
		if !l.tenants.describe(l.state, &tenant, &l.next, &l.attached) {
			continue
		}
		l.left--
		if on := each(&l.next); l.left == 0 || !on {
			l.ended = l.left == 0
			return !l.ended
		}
	}
	l.ended = true
	return false
}

// Describe describes one tenant. The error is NotFound for a Detached tenant too, once
// nothing is left of it on any pageserver.
func (t *Tenants) Describe(ctx context.Context, id neon.TenantID) (neon.TenantDescribe, error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return neon.TenantDescribe{}, err
	}
	return t.describeIn(s, id)
}

// DescribeNow is Describe from the newest local state.
func (t *Tenants) DescribeNow(id neon.TenantID) (neon.TenantDescribe, error) {
	return t.describeIn(t.Log.State(), id)
}

func (t *Tenants) describeIn(s *fsm.State, id neon.TenantID) (d neon.TenantDescribe, err error) {
	if tenant, ok := s.Tenant(id); ok {
		if t.describe(s, &tenant, &d, new([]neon.NodeID)) {
			return d, nil
		}
	}
	return neon.TenantDescribe{}, neon.Errorf(neon.NotFound, "Tenant %s not found", id)
}

// describe fills in d, which may have been used before; attached has what its shards refer
// to. It reports whether there is anything of the tenant.
func (t *Tenants) describe(
	s *fsm.State, tenant *fsm.Tenant, d *neon.TenantDescribe, attached *[]neon.NodeID,
) bool {
	d.Tenant, d.StripeSize, d.Policy = tenant.ID, tenant.Stripe, tenant.Policy
	d.Config = tenant.Config
	n := int(tenant.Count.Shards())
	d.Shards = slices.Grow(d.Shards[:0], n)
	nodes := slices.Grow((*attached)[:0], n)
	importing := s.Importing(tenant.ID)
	splitting := s.Splitting(tenant.ID)
	gone := tenant.Policy.Kind == neon.PlaceDetached
	for sh := range s.TenantShards(tenant.ID) {
		work := t.Reality.Work(sh)
		gone = gone && !work.Reconciling && len(t.Reality.Status(sh.ID).Observed) == 0
		d.Shards = append(d.Shards, neon.ShardDescribe{
			Shard: sh.ID, Secondary: sh.Secondary,
			LastError: work.LastError, Reconciling: work.Reconciling,
			PendingComputeNotification: work.PendingNotify,
			Importing:                  importing,
			Splitting:                  splitting,
			Scheduling:                 tenant.Scheduling, PreferredAZ: sh.PreferredAZ,
		})
		nodes = append(nodes, sh.Attached)
	}
	for i, n := range nodes {
		if n != 0 {
			d.Shards[i].Attached = &nodes[i]
		}
	}
	*attached = nodes
	return !gone
}

func nodeOrNull(n neon.NodeID) *neon.NodeID {
	if n == 0 {
		return nil
	}
	return &n
}

// Locate says where the shards of a tenant are attached, from a linearizable read. Any
// replica can answer it.
func (t *Tenants) Locate(
	ctx context.Context, id neon.TenantID,
) (resp neon.LocateResponse, err error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return resp, err
	}
	tenant, ok := s.Tenant(id)
	if !ok || tenant.Policy.Kind == neon.PlaceDetached {
		return resp, neon.Errorf(neon.NotFound, "No shards for this tenant ID found")
	}
	resp.Parameters = neon.ShardParameters{Count: tenant.Count, StripeSize: tenant.Stripe}
	resp.Shards = make([]neon.LocateShard, 0, tenant.Count.Shards())
	for sh := range s.TenantShards(id) {
		n, ok := s.Node(sh.Attached)
		if !ok {
			return resp, neon.Errorf(neon.BadRequest, "Cannot locate a tenant that is not attached")
		}
		resp.Shards = append(resp.Shards, neon.LocateShard{
			Shard: sh.ID, Node: n.ID,
			PgAddr: n.Addr.PGHost, PgPort: n.Addr.PGPort,
			GRPCAddr: textOrNull(n.Addr.GRPCHost), GRPCPort: portOrNull(n.Addr.GRPCPort),
			HTTPAddr: n.Addr.HTTPHost, HTTPPort: n.Addr.HTTPPort,
			HTTPSPort: portOrNull(n.Addr.HTTPSPort),
		})
	}
	return resp, nil
}

func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func portOrNull(p uint16) *uint16 {
	if p == 0 {
		return nil
	}
	return &p
}
