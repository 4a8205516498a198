package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster/simsafekeeper"
)

// safekeepers are the simulated safekeepers of a cluster.
type safekeepers struct{ keepers *simsafekeeper.Fleet }

// Safekeepers are the simulated safekeepers.
func (s *safekeepers) Safekeepers() *simsafekeeper.Fleet { return s.keepers }

// perTimeline is how many safekeepers a timeline gets.
func (b *Builder) perTimeline() int { return max(1, min(3, b.Safekeepers)) }

// newSafekeepers makes safekeepers, each in a zone of its own, with ids from 1.
func newSafekeepers(count int, n *network, token string) *safekeepers {
	s := &safekeepers{keepers: simsafekeeper.NewFleet()}
	for i := range count {
		host, last := fmt.Sprintf("sk%d", i+1), ""
		s.keepers.Add(neon.NodeID(i+1), token, func() (net.Listener, error) {
			l, err := n.listen(host, "7676", last)
			if err == nil {
				last = l.Addr().String() // a restart comes back where it was
			}
			return l, err
		})
	}
	return s
}

// start starts and registers all safekeepers and waits until they are active, which
// they become by their first heartbeat.
func (s *safekeepers) start(ctx context.Context, client *Client) error {
	for i, n := range s.keepers.Nodes() {
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
		if err := client.Safekeepers().Register(ctx, req); err != nil {
			return fmt.Errorf("register safekeeper %s: %w", n.ID(), err)
		}
	}
	var last error
	err := until(ctx, "wait for the safekeepers to be active", func() bool {
		list, err := client.Safekeepers().List(ctx)
		if last = err; err != nil {
			return false
		}
		for _, k := range list {
			if k.Scheduling != neon.SafekeeperActive {
				last = fmt.Errorf("safekeeper %s is %s", k.ID, k.Scheduling)
				return false
			}
		}
		return len(list) == len(s.keepers.Nodes())
	})
	return errors.Join(err, ifFailed(err, last))
}

func ifFailed(err, detail error) error {
	if err == nil {
		return nil
	}
	return detail
}

// foreseen shows the safekeepers' checker the state that is about to be published.
func (s *safekeepers) foreseen(next *fsm.State) {
	var all []simsafekeeper.Committed
	for tl := range next.Timelines() {
		all = append(all,
			simsafekeeper.Committed{Ref: tl.Ref(), Conf: next.Membership(&tl), Deleted: tl.Deleted})
	}
	s.keepers.Commit(next.Index, all)
}

// CheckSafekeepers demands, of a cluster at rest, that nothing is owed, that every
// timeline is on exactly the safekeepers of its set and a quorum of them has its newest
// configuration, and that nothing forbidden was asked of a safekeeper.
func (s *safekeepers) CheckSafekeepers(now *fsm.State) error {
	errs := []error{s.keepers.Err()}
	for _, ref := range s.keepers.Lost() {
		errs = append(errs,
			fmt.Errorf("I29: what was acknowledged of timeline %s is not on a quorum", ref))
	}
	if n := now.SafekeeperOpCount(); n > 0 {
		errs = append(errs, fmt.Errorf("safekeepers owe %d operations", n))
	}
	want := make(map[neon.NodeID]int)
	for tl := range now.Timelines() {
		if !tl.MigrationDone() || tl.Deleted {
			errs = append(errs, fmt.Errorf("timeline %s is not in its final configuration: %+v", tl.ID, tl))
		}
		newest := 0
		for _, id := range tl.Set {
			want[id]++
			conf, ok := s.keepers.Node(id).Has(tl.Ref())
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
	for _, n := range s.keepers.Nodes() {
		if k, _ := now.Safekeeper(n.ID()); k.Gone {
			continue // nobody asks it for anything
		}
		if n.Count() != want[n.ID()] {
			errs = append(errs, fmt.Errorf(
				"safekeeper %s has %d timelines and is in the sets of %d", n.ID(), n.Count(),
				want[n.ID()]))
		}
	}
	return errors.Join(errs...)
}
