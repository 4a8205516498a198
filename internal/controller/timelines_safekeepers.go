package controller

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

const (
	// quorumTime bounds what needs a quorum of the safekeepers of a timeline.
	quorumTime = 30 * time.Second

	// stragglerTime is how long the others are waited for once there is a quorum:
	// they are seen to in the background.
	stragglerTime = 2 * time.Second

	// safekeeperPause is between two tries on one safekeeper, of which there are
	// safekeeperTries.
	safekeeperPause = 500 * time.Millisecond
	safekeeperTries = 5
)

// onto is a timeline that is to be put on safekeepers.
type onto struct {
	tenant   neon.TenantID
	info     neon.TimelineInfo
	writable bool
	imported bool // its import has to be going on still
}

// place puts a timeline that the pageservers have just created on safekeepers, and
// says on which. The set is in the log before any of them hears of it, and a
// repeated creation finds it there. With a quorum of the set the timeline is
// created: a member that missed it owes to pull it from the others.
func (t *Timelines) place(ctx context.Context, p onto) (*neon.SafekeeperSet, error) {
	tenant, info := p.tenant, p.info
	decide := func(s *fsm.State) (fsm.Command, error) {
		if tl, ok := s.Timeline(tenant, info.Timeline); ok && !tl.Deleted {
			return nil, nil
		}
		c := fsm.CreateTimeline{
			Tenant: tenant, Timeline: info.Timeline, StartLsn: info.LastRecordLsn,
			Imported: p.imported,
		}
		if !p.writable {
			return c, nil
		}
		set, err := t.choose(s, tenant)
		c.Set = set
		return c, err
	}
	if _, err := commit(ctx, t.Log, decide); err != nil {
		return nil, err
	}
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	tl, ok := s.Timeline(tenant, info.Timeline)
	if !ok || tl.Deleted {
		return nil, neon.Errorf(neon.Conflict, "timeline %s/%s is being deleted", tenant,
			info.Timeline)
	}
	// A configuration that has changed since is proof that the creation was done.
	if tl.Generation == 1 && len(tl.Set) > 0 {
		if err := t.createOnSafekeepers(ctx, s, &tl, info.PgVersion); err != nil {
			return nil, err
		}
	}
	answer := &neon.SafekeeperSet{
		Tenant: tenant, Timeline: tl.ID, Generation: uint32(tl.Generation),
		Safekeepers: neon.List[neon.SafekeeperHost]{},
	}
	for _, id := range tl.Set {
		sk, _ := s.Safekeeper(id)
		answer.Safekeepers = append(answer.Safekeepers,
			neon.SafekeeperHost{ID: id, Hostname: sk.Host})
	}
	return answer, nil
}

// choose finds the safekeepers of a new timeline: active ones in different zones,
// those with the fewest timelines first. One that does not answer comes last but
// is chosen rather than nobody.
func (t *Timelines) choose(s *fsm.State, tenant neon.TenantID) (set []neon.NodeID, err error) {
	type candidate struct {
		sk   *fsm.Safekeeper
		load uint64
	}
	var all []candidate
	loads := t.SafekeeperWatch.SafekeeperLoads()
	for sk := range s.Safekeepers() {
		if _, owes := s.SafekeeperOp(sk.ID, tenant, neon.TimelineID{}); owes ||
			sk.Scheduling != neon.SafekeeperActive {
			continue
		}
		c := candidate{sk: sk, load: math.MaxUint64}
		if l := loads[sk.ID]; l.Available {
			c.load = l.Timelines
		}
		all = append(all, c)
	}
	// they come by id
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.load, b.load) })
	zones := make(map[neon.AZ]bool)
	wanted := t.Options.SafekeepersPerTimeline
	for _, c := range all {
		if !zones[c.sk.AZ] && len(set) < wanted {
			zones[c.sk.AZ] = true
			set = append(set, c.sk.ID)
		}
	}
	if len(set) < wanted {
		return nil, neon.Errorf(neon.Internal,
			"couldn't find %d safekeepers in different AZs for new timeline (found: %d, total active: %d)",
			wanted, len(set), len(all))
	}
	return set, nil
}

// createOnSafekeepers creates a timeline on a quorum of its set.
func (t *Timelines) createOnSafekeepers(
	ctx context.Context, s *fsm.State, tl *fsm.Timeline, version neon.PgVersion,
) error {
	body := neon.SafekeeperTimelineCreate{
		Tenant: tl.Tenant, Timeline: tl.ID, Membership: s.Membership(tl),
		PgVersion: uint32(version) * 10000, StartLsn: tl.StartLsn,
	}
	missed, err := t.quorum(ctx, s, tl.Set, func(ctx context.Context, sk *fsm.Safekeeper) error {
		return t.Safekeepers.CreateTimeline(ctx, sk, body)
	})
	if err != nil || len(missed) == 0 {
		return err
	}
	for _, id := range missed {
		t.Logger.Info("writing pending op for sk id "+id.String(), "tenant", tl.Tenant,
			"timeline", tl.ID)
	}
	// It exists now, so what is missing is recorded also for a client that has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), quorumTime)
	defer cancel()
	_, err = t.Log.Propose(ctx, fsm.RequestID{}, fsm.PullTimeline{
		Tenant: tl.Tenant, Timeline: tl.ID, Generation: tl.Generation, Safekeepers: missed,
	})
	return err
}

// quorum runs f on all safekeepers of a set, a few tries each, and lists those where
// it failed or took too long. Without success on a majority that is an error.
func (t *Timelines) quorum(
	ctx context.Context, s *fsm.State, set []neon.NodeID,
	f func(context.Context, *fsm.Safekeeper) error,
) (missed []neon.NodeID, err error) {
	ctx, cancel := context.WithTimeout(ctx, quorumTime)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		good = make(map[neon.NodeID]bool)
		late *time.Timer
	)
	for _, id := range set {
		sk, ok := s.Safekeeper(id)
		if !ok {
			continue // cannot be: members are registered
		}
		wg.Go(func() {
			err := t.tryHard(ctx, &sk, f)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Logger.Info("a safekeeper did not do its part", "safekeeper", id, "err", err)
				return
			}
			good[id] = true
			if len(good) == len(set)/2+1 {
				late = time.AfterFunc(stragglerTime, cancel)
			}
		})
	}
	wg.Wait()
	if late != nil {
		late.Stop()
	}
	for _, id := range set {
		if !good[id] {
			missed = append(missed, id)
		}
	}
	if need := len(set)/2 + 1; len(good) < need {
		return missed, neon.Errorf(neon.Internal,
			"not enough successful reconciliations to reach quorum size: %d of %d of total %d",
			len(good), need, len(set))
	}
	return missed, nil
}

func (t *Timelines) tryHard(
	ctx context.Context, sk *fsm.Safekeeper, f func(context.Context, *fsm.Safekeeper) error,
) (err error) {
	for n := range safekeeperTries {
		if n > 0 {
			select {
			case <-time.After(safekeeperPause):
			case <-ctx.Done():
				return err
			}
		}
		if err = f(ctx, sk); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}
