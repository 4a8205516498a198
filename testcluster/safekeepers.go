package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster/simsafekeeper"
)

// Safekeepers are the simulated safekeepers.
func (c *Cluster) Safekeepers() *simsafekeeper.Fleet { return c.keepers }

// perTimeline is how many safekeepers a timeline gets.
func (b *Builder) perTimeline() int { return max(1, min(3, b.Safekeepers)) }

// addSafekeepers makes the safekeepers, each in a zone of its own, with ids from 1.
func (c *Cluster) addSafekeepers() {
	c.keepers = simsafekeeper.NewFleet()
	for i := range c.builder.Safekeepers {
		host, addr := fmt.Sprintf("sk%d", i+1), ""
		listen := func() (net.Listener, error) {
			if c.memory != nil {
				return c.memory.Host(host).Listen(host + ":7676")
			}
			if addr == "" {
				addr = "127.0.0.1:0"
			}
			l, err := net.Listen("tcp", addr)
			if err == nil {
				addr = l.Addr().String() // a restart comes back where it was
			}
			return l, err
		}
		c.keepers.Add(neon.NodeID(i+1), c.Token("safekeeperdata"), listen)
	}
}

// startSafekeepers starts and registers all safekeepers and waits until they are
// active, which they become by their first heartbeat.
func (c *Cluster) startSafekeepers(ctx context.Context) error {
	client := c.Client()
	for i, n := range c.keepers.Nodes() {
		if err := n.Start(); err != nil {
			return err
		}
		host, port, err := net.SplitHostPort(n.Addr())
		if err != nil {
			return err
		}
		http, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return err
		}
		req := neon.SafekeeperUpsert{
			ID: int64(n.ID()), Region: "aws-us-east-2", Version: 5957, Host: host, Port: 5454,
			HTTPPort: uint16(http), AZ: Zone(i).String(),
		}
		if err := client.RegisterSafekeeper(ctx, req); err != nil {
			return fmt.Errorf("register safekeeper %s: %w", n.ID(), err)
		}
	}
	var last error
	err := until(ctx, "wait for the safekeepers to be active", func() bool {
		list, err := client.SafekeeperList(ctx)
		if last = err; err != nil {
			return false
		}
		for _, k := range list {
			if k.Scheduling != neon.SafekeeperActive {
				last = fmt.Errorf("safekeeper %s is %s", k.ID, k.Scheduling)
				return false
			}
		}
		return len(list) == len(c.keepers.Nodes())
	})
	return errors.Join(err, ifFailed(err, last))
}

func ifFailed(err, detail error) error {
	if err == nil {
		return nil
	}
	return detail
}

// foreseen tells the safekeepers' checker what is about to be applied.
func (c *Cluster) foreseen(s *fsm.State) {
	var all []simsafekeeper.Committed
	for tl := range s.Timelines() {
		all = append(all,
			simsafekeeper.Committed{Ref: tl.Ref(), Conf: s.Membership(&tl), Deleted: tl.Deleted})
	}
	c.keepers.Commit(s.Index, all)
}

// CheckSafekeepers demands, of a cluster at rest, that nothing is owed, that every
// timeline is on exactly the safekeepers of its set and a quorum of them has its newest
// configuration, and that nothing forbidden was asked of a safekeeper.
func (c *Cluster) CheckSafekeepers(s *fsm.State) error {
	errs := []error{c.keepers.Err()}
	for _, ref := range c.keepers.Lost() {
		errs = append(errs,
			fmt.Errorf("I29: what was acknowledged of timeline %s is not on a quorum", ref))
	}
	if n := s.SafekeeperOpCount(); n > 0 {
		errs = append(errs, fmt.Errorf("safekeepers owe %d operations", n))
	}
	want := make(map[neon.NodeID]int)
	for tl := range s.Timelines() {
		if !tl.MigrationDone() || tl.Deleted {
			errs = append(errs, fmt.Errorf("timeline %s is not settled: %+v", tl.ID, tl))
		}
		newest := 0
		for _, id := range tl.Set {
			want[id]++
			conf, ok := c.keepers.Node(id).Has(tl.Ref())
			if !ok || conf.Generation > tl.Generation {
				errs = append(errs, fmt.Errorf(
					"safekeeper %s has timeline %s: %v, in generation %d of %d", id, tl.ID, ok,
					conf.Generation, tl.Generation))
			}
			if conf.Generation == tl.Generation {
				newest++
			}
		}
		if newest <= len(tl.Set)/2 && len(tl.Set) > 0 { // the others are told by compute
			errs = append(errs, fmt.Errorf("timeline %s is in generation %d on %d of %v", tl.ID,
				tl.Generation, newest, tl.Set))
		}
	}
	for _, n := range c.keepers.Nodes() {
		if n.Count() != want[n.ID()] {
			errs = append(errs, fmt.Errorf(
				"safekeeper %s has %d timelines and is in the sets of %d", n.ID(), n.Count(),
				want[n.ID()]))
		}
	}
	return errors.Join(errs...)
}

// RegisterSafekeeper makes a safekeeper known.
func (c *Client) RegisterSafekeeper(ctx context.Context, req neon.SafekeeperUpsert) error {
	return c.Call(ctx, http.MethodPost, fmt.Sprintf("/control/v1/safekeeper/%d", req.ID), req, nil)
}

// SafekeeperList lists the safekeepers by id.
func (c *Client) SafekeeperList(ctx context.Context) (list []neon.SafekeeperDescribe, err error) {
	return list, c.Call(ctx, http.MethodGet, "/control/v1/safekeeper", nil, &list)
}

// SafekeeperPolicy sets how a safekeeper is used.
func (c *Client) SafekeeperPolicy(
	ctx context.Context, id neon.NodeID, to neon.SafekeeperScheduling,
) error {
	req := neon.SafekeeperPolicyRequest{Scheduling: to}
	return c.Call(ctx, http.MethodPost, "/control/v1/safekeeper/"+id.String()+"/scheduling_policy",
		req, nil)
}

// CreateTimelineOnSafekeepers is CreateTimeline with the safekeepers of the answer.
func (c *Client) CreateTimelineOnSafekeepers(
	ctx context.Context, t neon.TenantID, req neon.TimelineCreateRequest,
) (resp neon.TimelineCreateResponse, err error) {
	err = c.Call(ctx, http.MethodPost, "/v1/tenant/"+t.String()+"/timeline", req, &resp)
	c.ledger.ack(t, err, func(e *entry) { e.timelines[req.Timeline] = true })
	return resp, err
}

// MigrateSafekeepers moves a timeline to another set of safekeepers.
func (c *Client) MigrateSafekeepers(
	ctx context.Context, t neon.TenantID, tl neon.TimelineID, set []neon.NodeID,
) error {
	path := fmt.Sprintf("/v1/tenant/%s/timeline/%s/safekeeper_migrate", t, tl)
	return c.Call(ctx, http.MethodPost, path, neon.SafekeeperMigrateRequest{NewSet: set}, nil)
}

// AbortSafekeepers takes a migration back.
func (c *Client) AbortSafekeepers(ctx context.Context, t neon.TenantID, tl neon.TimelineID) error {
	return c.Call(ctx, http.MethodPost,
		fmt.Sprintf("/v1/tenant/%s/timeline/%s/safekeeper_migrate_abort", t, tl), nil, nil)
}
