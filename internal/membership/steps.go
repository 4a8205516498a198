package membership

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// pullTime bounds the copying of a timeline to the newcomers of a migration.
const pullTime = 30 * time.Second

// position is how far a log reaches: a later term is further, whatever the LSN.
type position struct {
	term uint64
	lsn  neon.Lsn
}

func (p position) compare(o position) int {
	return cmp.Or(cmp.Compare(p.term, o.term), cmp.Compare(p.lsn, o.lsn))
}

// advance carries a joint configuration to its commit. All that was ever committed
// of the log must be on a quorum of the new set before that:
//
//   - compute learns both sets before either can be needed for its quorum;
//   - a quorum of the old set takes the joint configuration, so that from here on no
//     write is acknowledged without the new set, and what was before is not beyond
//     the sync position;
//   - the newcomers copy the log;
//   - a quorum of the new set has reached the sync position;
//   - the commit, which is refused if the move was aborted meanwhile.
func (m *Migrator) advance(ctx context.Context, s *fsm.State, tl *fsm.Timeline) error {
	conf := s.Membership(tl)
	if err := m.tellCompute(ctx, tl, conf); err != nil {
		return err
	}
	have, err := m.switchAll(ctx, s, switching{tl: tl, conf: conf, set: tl.Set})
	if err != nil {
		return err
	}
	if err := m.acknowledge(ctx, tl, fsm.AckMembership{Set: tl.Generation}); err != nil {
		return err
	}
	if err := m.fail(ctx, "sk-migration-after-step-4"); err != nil {
		return err
	}
	sync := have[len(tl.Set)/2]
	if err := m.pullAll(ctx, s, tl, conf); err != nil {
		return err
	}
	if err := m.fail(ctx, "sk-migration-after-step-5"); err != nil {
		return err
	}
	m.Logger.Info("waiting for safekeepers to sync position", "timeline", tl.Ref().String(),
		"term", sync.term, "lsn", sync.lsn)
	if _, err := m.switchAll(ctx, s,
		switching{tl: tl, conf: conf, set: tl.NewSet, atLeast: sync}); err != nil {
		return err
	}
	if err := m.fail(ctx, "sk-migration-after-step-7"); err != nil {
		return err
	}
	_, err = m.Log.Propose(ctx, fsm.RequestID{}, fsm.EndMembership{
		Tenant: tl.Tenant, Timeline: tl.ID, Generation: tl.Generation,
		Verdict: fsm.MembershipCommit,
	})
	if err != nil {
		return err
	}
	return m.fail(ctx, "sk-migration-after-step-8")
}

// publish makes a configuration that is not joint known: to a quorum of its members,
// then to those it excludes, and last to compute, which goes on asking for the
// excluded until the members do not need them any more.
func (m *Migrator) publish(ctx context.Context, s *fsm.State, tl *fsm.Timeline) error {
	conf := s.Membership(tl)
	if len(tl.Set) > 0 {
		if _, err := m.switchAll(ctx, s, switching{tl: tl, conf: conf, set: tl.Set}); err != nil {
			return err
		}
	}
	if err := m.acknowledge(ctx, tl, fsm.AckMembership{Set: tl.Generation}); err != nil {
		return err
	}
	if err := m.fail(ctx, "sk-migration-step-9-after-set-membership"); err != nil {
		return err
	}
	if err := m.excludeAll(ctx, s, tl, conf); err != nil {
		return err
	}
	if err := m.fail(ctx, "sk-migration-step-9-after-exclude"); err != nil {
		return err
	}
	if err := m.tellCompute(ctx, tl, conf); err != nil {
		return err
	}
	return m.fail(ctx, "sk-migration-after-step-9")
}

func (m *Migrator) acknowledge(
	ctx context.Context, tl *fsm.Timeline, ack fsm.AckMembership,
) error {
	ack.Tenant, ack.Timeline = tl.Tenant, tl.ID
	_, err := m.Log.Propose(ctx, fsm.RequestID{}, ack)
	return err
}

// tellCompute notifies compute of a configuration unless it has acknowledged it.
func (m *Migrator) tellCompute(ctx context.Context, tl *fsm.Timeline, conf neon.Membership) error {
	if tl.ComputeAcknowledged >= tl.Generation {
		return nil
	}
	body := neon.NotifySafekeepers{
		Tenant: tl.Tenant, Timeline: tl.ID, Generation: tl.Generation,
		Safekeepers: neon.List[neon.NotifySafekeeper]{},
	}
	members := slices.Clone(conf.Members)
	if conf.NewMembers != nil {
		members = append(members, *conf.NewMembers...)
	}
	seen := make(map[neon.NodeID]bool)
	for _, m := range members {
		if !seen[m.ID] {
			seen[m.ID] = true
			body.Safekeepers = append(body.Safekeepers,
				neon.NotifySafekeeper{ID: m.ID, Hostname: new(m.Host)})
		}
	}
	if m.Hook != nil {
		if err := m.Hook.NotifySafekeepers(ctx, body); err != nil {
			return neon.Errorf(neon.Internal,
				"failed to notify cplane about safekeeper membership change: %w", err)
		}
	}
	return m.acknowledge(ctx, tl, fsm.AckMembership{Compute: tl.Generation})
}

// switching is a configuration on its way to a set of safekeepers. One whose log
// does not reach atLeast does not count.
type switching struct {
	tl      *fsm.Timeline
	conf    neon.Membership
	set     []neon.NodeID
	atLeast position
}

// switchAll gives a configuration to a quorum of a set and returns how far their
// logs reach, in ascending order.
func (m *Migrator) switchAll(ctx context.Context, s *fsm.State, w switching) ([]position, error) {
	var (
		mu    sync.Mutex
		have  []position
		newer neon.SafekeeperGeneration
	)
	_, err := quorum(ctx, m.Logger, s, w.set, func(ctx context.Context, sk *fsm.Safekeeper) error {
		resp, err := m.Safekeepers.SwitchMembership(ctx, sk, w.tl.Ref(), w.conf)
		if err != nil {
			return err
		}
		at := position{resp.LastLogTerm, resp.FlushLsn}
		if at.compare(w.atLeast) < 0 {
			return fmt.Errorf("safekeeper %d has the log up to %s of term %d, not to %s of term %d",
				sk.ID, at.lsn, at.term, w.atLeast.lsn, w.atLeast.term)
		}
		mu.Lock()
		defer mu.Unlock()
		have, newer = append(have, at), max(newer, resp.Current.Generation)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if newer > w.conf.Generation {
		return nil, neon.Errorf(neon.Conflict,
			"received configuration with generation %d from safekeeper, but expected %d", newer,
			w.conf.Generation)
	}
	slices.SortFunc(have, position.compare)
	return have, nil
}

// pullAll copies the log to every newcomer of a migration; all have to get it.
func (m *Migrator) pullAll(
	ctx context.Context, s *fsm.State, tl *fsm.Timeline, conf neon.Membership,
) error {
	ctx, cancel := context.WithTimeout(ctx, pullTime)
	defer cancel()
	req := neon.PullTimelineRequest{
		Tenant: tl.Tenant, Timeline: tl.ID, HTTPHosts: neon.List[string]{}, Membership: &conf,
	}
	for _, id := range tl.Set {
		sk, _ := s.Safekeeper(id)
		req.HTTPHosts = append(req.HTTPHosts, m.Safekeepers.BaseURL(&sk))
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		fail error
	)
	for _, id := range tl.NewSet {
		if slices.Contains(tl.Set, id) {
			continue
		}
		sk, _ := s.Safekeeper(id)
		wg.Go(func() {
			err := tryHard(ctx, &sk, func(ctx context.Context, sk *fsm.Safekeeper) error {
				_, err := m.Safekeepers.PullTimeline(ctx, sk, req)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil && fail == nil {
				fail = neon.Errorf(neon.Internal, "pull_timeline to %d failed: %w", id, err)
			}
		})
	}
	wg.Wait()
	return fail
}

// excludeAll makes those drop the timeline who are no members of this configuration
// any more. Where that fails it stays owed.
func (m *Migrator) excludeAll(
	ctx context.Context, s *fsm.State, tl *fsm.Timeline, conf neon.Membership,
) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		done fsm.FinishSafekeeperOps
	)
	for sk := range s.Safekeepers() {
		op, owed := s.SafekeeperOp(sk.ID, tl.Tenant, tl.ID)
		if !owed || op.Kind != fsm.OpExclude || op.Generation != tl.Generation {
			continue
		}
		wg.Go(func() {
			err := tryHard(ctx, sk, func(ctx context.Context, sk *fsm.Safekeeper) error {
				return m.Safekeepers.ExcludeTimeline(ctx, sk, tl.Ref(), conf)
			})
			if err != nil {
				m.Logger.Info("an exclusion stays owed", "safekeeper", sk.ID,
					"timeline", tl.Ref().String(), "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			done.Ops = append(done.Ops, op)
		})
	}
	wg.Wait()
	if err := m.fail(ctx, "sk-migration-step-9-mid-exclude"); err != nil {
		return err
	}
	if len(done.Ops) == 0 {
		return nil
	}
	_, err := m.Log.Propose(ctx, fsm.RequestID{}, done)
	return err
}
