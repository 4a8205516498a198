package imports

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/duty"
	"quorate/internal/failpoint"
	"quorate/internal/fanout"
	"quorate/internal/membership"
	"quorate/internal/wait"
)

// Hook tells the control plane how the import of a timeline ended.
type Hook interface {
	// ImportComplete makes one attempt.
	ImportComplete(ctx context.Context, body neon.ImportComplete) error
}

// Safekeepers puts timelines on safekeepers.
type Safekeepers interface {
	Create(ctx context.Context, t membership.Timeline) (*neon.SafekeeperSet, error)
}

// Deps is what an Importer works with.
type Deps struct {
	Log         decide.Log
	Pageservers fanout.Caller
	Safekeepers Safekeepers
	Hook        Hook // nil: the end of an import is told nowhere

	// Turns lets one at a time work on a timeline. A deletion interrupts an import.
	Turns *duty.Turns[neon.TimelineRef]

	Failpoints failpoint.Points // nil: none

	OntoSafekeepers bool // the controller chooses the safekeepers of new timelines
	Logger          *slog.Logger
}

// Importer takes imports to their end.
type Importer struct {
	Deps
	work wait.Signal // wakes Run
}

// New makes an Importer. Run ends what it begins.
func New(d Deps) *Importer {
	d.Failpoints = failpoint.OrNone(d.Failpoints)
	return &Importer{Deps: d, work: wait.NewSignal()}
}

// Pauses between tries of what ends an import.
const (
	activatePause = 250 * time.Millisecond
	importPlace   = 5 * time.Second
	importNotify  = time.Second
)

// importPoint is a place at which tests hold the end of an import.
const importPoint = "timeline-import-pre-cplane-notification"

// Begin records an import that the pageservers have just begun.
func (m *Importer) Begin(ctx context.Context, ref neon.TimelineRef) error {
	_, err := decide.Commit(ctx, m.Log, func(s *fsm.State) (fsm.Command, error) {
		if _, ok := s.Import(ref); ok {
			return nil, nil
		}
		return fsm.BeginImport{Tenant: ref.Tenant, Timeline: ref.Timeline}, nil
	})
	return err
}

// find finds an import that is not finished, from a linearizable read: a
// leader that was deposed unawares must not go on with one that is gone.
func (m *Importer) find(
	ctx context.Context, ref neon.TimelineRef,
) (s *fsm.State, i fsm.Import, open bool, err error) {
	if s, err = m.Log.ReadState(ctx); err != nil {
		return s, i, false, err
	}
	i, ok := s.Import(ref)
	return s, i, ok && !i.Finished, nil
}

// end takes a complete import to its end: the timeline is made usable on all
// shards, put on safekeepers if that is the controller's task, and the control plane
// is told. Every step may be repeated, and is, until it succeeds, by any leader.
// It returns when the import is finished or gone, or with the error of ctx.
func (m *Importer) end(ctx context.Context, ref neon.TimelineRef) error {
	_, i, open, err := m.find(ctx, ref)
	if err != nil || !open {
		return err
	}
	m.Logger.Info("Finalizing timeline import", "timeline", ref.String())
	if err := m.Failpoints.Pausable(ctx, importPoint); err != nil {
		return err
	}
	outcome := neon.ImportComplete{Tenant: ref.Tenant, Timeline: ref.Timeline, Error: failures(&i)}
	if outcome.Error == nil {
		info, open, err := m.activate(ctx, ref)
		if err != nil || !open {
			return err
		}
		if err := m.createOnSafekeepers(ctx, ref, info); err != nil {
			return err
		}
	}
	return m.announce(ctx, ref, outcome)
}

// failures is what the shards have reported as a JSON object, nil if all
// succeeded.
func failures(i *fsm.Import) *string {
	texts := make(map[string]string)
	for n, s := range i.Shards {
		if s.State == neon.ShardImportFailed {
			texts[ShardIndex(neon.ShardID{Number: neon.ShardNumber(n), Count: i.Count})] = s.Error
		}
	}
	if len(texts) == 0 {
		return nil
	}
	b, err := json.Marshal(texts)
	if err != nil {
		panic(err) // strings always encode
	}
	return new(string(b))
}

// activate makes an imported timeline usable on every shard and returns the
// description by shard zero. Shards that move meanwhile, or are not attached, are
// asked again where they are then.
//
// An answer counts for the generation that was asked: a later one may have been attached
// before the answer, with the index in which the import has not ended. So it returns only
// when a state that was read after the last answer has those generations.
func (m *Importer) activate(
	ctx context.Context, ref neon.TimelineRef,
) (info neon.TimelineInfo, open bool, err error) {
	active := make(map[neon.ShardID]neon.Generation)
	for {
		s, i, open, err := m.find(ctx, ref)
		if ctx.Err() != nil || err == nil && !open {
			return info, false, ctx.Err()
		}
		if err == nil {
			owners, left := inactive(s, &i, active)
			if left == 0 {
				m.Logger.Info("Post import timeline activation complete", "timeline", ref.String())
				return info, true, nil
			}
			if got := m.activateOn(ctx, owners, ref, active); got != nil {
				info = *got
			}
			if _, left = inactive(s, &i, active); left == 0 {
				continue
			}
			m.Logger.Info(fmt.Sprintf(
				"Failed to activate timeline on %d shards post import. Will retry", left),
				"timeline", ref.String())
		}
		if err := wait.Sleep(ctx, activatePause); err != nil {
			return info, false, err
		}
	}
}

// activateOn asks some owners, and notes in which generations the timeline is active. The
// description is that of shard zero, if it was among them.
func (m *Importer) activateOn(
	ctx context.Context, owners []fanout.Owner, ref neon.TimelineRef,
	active map[neon.ShardID]neon.Generation,
) (info *neon.TimelineInfo) {
	asked := make(map[neon.ShardID]neon.Generation, len(owners))
	for _, o := range owners {
		asked[o.Shard] = o.Generation
	}
	for _, r := range fanout.Ask(ctx, m.Pageservers, owners, neon.ActivateImported(ref.Timeline)) {
		var got neon.TimelineInfo
		if r.Err != nil || r.Status != http.StatusOK || json.Unmarshal(r.Body, &got) != nil {
			continue
		}
		active[r.Shard] = asked[r.Shard]
		if r.Shard.Number == 0 {
			info = &got
		}
	}
	return info
}

// inactive are the owners of the shards in whose generations the timeline is not known to be
// active, and how many shards there are of them, those without an owner included.
func inactive(
	s *fsm.State, i *fsm.Import, active map[neon.ShardID]neon.Generation,
) (owners []fanout.Owner, left int) {
	tenant, _ := s.Tenant(i.Tenant)
	left = i.Count.Shards()
	for sh := range s.TenantShards(i.Tenant) {
		o, err := fanout.OwnerOf(s, tenant, sh)
		if err != nil {
			continue
		}
		if g, ok := active[sh.ID]; ok && g == o.Generation {
			left--
			continue
		}
		owners = append(owners, o)
	}
	return owners, left
}

// createOnSafekeepers puts an imported timeline on safekeepers, from where its log begins.
func (m *Importer) createOnSafekeepers(
	ctx context.Context, ref neon.TimelineRef, info neon.TimelineInfo,
) error {
	if !m.OntoSafekeepers {
		return nil
	}
	for {
		_, err := m.Safekeepers.Create(ctx, membership.Timeline{
			Tenant: ref.Tenant, Info: info, Writable: true, Imported: true,
		})
		switch {
		case err == nil:
			m.Logger.Info("Timeline created on safekeepers", "timeline", ref.String())
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if _, _, open, rerr := m.find(ctx, ref); rerr == nil && !open {
			return nil // there is nothing to announce either
		}
		m.Logger.Info("Failed to create timeline on safekeepers", "timeline", ref.String(),
			"err", err)
		if err := wait.Sleep(ctx, importPlace); err != nil {
			return err
		}
	}
}

// announce tells the control plane until it has heard, and finishes the
// import then. It may hear twice if the leader dies in between.
func (m *Importer) announce(
	ctx context.Context, ref neon.TimelineRef, outcome neon.ImportComplete,
) error {
	m.Logger.Info("Notifying cplane of import completion", "timeline", ref.String(),
		"import_failed", outcome.Error != nil)
	for try := 1; ; try++ {
		_, _, open, err := m.find(ctx, ref)
		if ctx.Err() != nil || err == nil && !open {
			return ctx.Err()
		}
		if err == nil && m.Hook != nil {
			err = m.Hook.ImportComplete(ctx, outcome)
		}
		if err == nil {
			_, err = m.Log.Propose(ctx, fsm.RequestID{},
				fsm.FinishImport{Tenant: ref.Tenant, Timeline: ref.Timeline})
		}
		if err == nil {
			m.Logger.Info("Timeline import completed", "timeline", ref.String(),
				"import_failed", outcome.Error != nil)
			return nil
		}
		m.Logger.Info("Import complete notification failed", "timeline", ref.String(),
			"attempt", try, "err", err)
		if err := wait.Sleep(ctx, importNotify); err != nil {
			return err
		}
	}
}

// ShardIndex is a shard as NNCC.
func ShardIndex(id neon.ShardID) string {
	return fmt.Sprintf("%02x%02x", uint8(id.Number), uint8(id.Count))
}
