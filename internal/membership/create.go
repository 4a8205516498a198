package membership

import (
	"cmp"
	"context"
	"math"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// Timeline is one that is to be put on safekeepers.
type Timeline struct {
	Tenant   neon.TenantID
	Info     neon.TimelineInfo // what the pageservers say
	Writable bool              // else it gets no safekeepers
	Imported bool              // its import has to be going on still
}

// Creator puts new timelines on safekeepers.
type Creator struct{ Deps }

// NewCreator makes a Creator.
func NewCreator(d Deps) *Creator { return &Creator{d} }

// Create puts a timeline that the pageservers have just created on safekeepers, and
// says on which. The set is in the log before any of them hears of it, and a
// repeated creation finds it there. With a quorum of the set the timeline is
// created: a member that missed it owes to pull it from the others.
func (c *Creator) Create(ctx context.Context, p Timeline) (*neon.SafekeeperSet, error) {
	tenant, info := p.Tenant, p.Info
	decision := func(s *fsm.State) (fsm.Command, error) {
		if tl, ok := s.Timeline(tenant, info.Timeline); ok && !tl.Deleted {
			return nil, nil
		}
		create := fsm.CreateTimeline{
			Tenant: tenant, Timeline: info.Timeline, StartLsn: info.LastRecordLsn,
			Imported: p.Imported,
		}
		if !p.Writable {
			return create, nil
		}
		set, err := c.choose(s, tenant)
		create.Set = set
		return create, err
	}
	if _, err := decide.Commit(ctx, c.Log, decision); err != nil {
		return nil, err
	}
	s, err := c.Log.ReadState(ctx)
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
		if err := c.createOnSafekeepers(ctx, s, &tl, info.PgVersion); err != nil {
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
// is chosen rather than none.
func (c *Creator) choose(s *fsm.State, tenant neon.TenantID) (set []neon.NodeID, err error) {
	type candidate struct {
		sk   *fsm.Safekeeper
		load uint64
	}
	var all []candidate
	loads := c.Loads.Loads()
	for sk := range s.Safekeepers() {
		if _, owes := s.SafekeeperOp(sk.ID, tenant, neon.TimelineID{}); owes ||
			sk.Scheduling != neon.SafekeeperActive {
			continue
		}
		one := candidate{sk: sk, load: math.MaxUint64}
		if l := loads[sk.ID]; l.Available {
			one.load = l.Timelines
		}
		all = append(all, one)
	}
	// they come by id
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.load, b.load) })
	zones := make(map[neon.AZ]bool)
	wanted := c.PerTimeline
	for _, one := range all {
		if !zones[one.sk.AZ] && len(set) < wanted {
			zones[one.sk.AZ] = true
			set = append(set, one.sk.ID)
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
func (c *Creator) createOnSafekeepers(
	ctx context.Context, s *fsm.State, tl *fsm.Timeline, version neon.PgVersion,
) error {
	body := neon.SafekeeperTimelineCreate{
		Tenant: tl.Tenant, Timeline: tl.ID, Membership: s.Membership(tl),
		PgVersion: uint32(version) * 10000, StartLsn: tl.StartLsn,
	}
	missed, err := quorum(ctx, c.Logger, s, tl.Set,
		func(ctx context.Context, sk *fsm.Safekeeper) error {
			return c.Safekeepers.CreateTimeline(ctx, sk, body)
		})
	if err != nil || len(missed) == 0 {
		return err
	}
	for _, id := range missed {
		c.Logger.Info("writing pending op for sk id "+id.String(), "tenant", tl.Tenant,
			"timeline", tl.ID)
	}
	// It exists now, so what is missing is recorded also for a client that has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), quorumTime)
	defer cancel()
	_, err = c.Log.Propose(ctx, fsm.RequestID{}, fsm.PullTimeline{
		Tenant: tl.Tenant, Timeline: tl.ID, Generation: tl.Generation, Safekeepers: missed,
	})
	return err
}
