package split

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// clear removes what is left of the parents on the pageservers that can be reached.
// It tells whether there is more to be done now.
func (p *Splitter) clear(ctx context.Context, sp fsm.Split) (more bool, err error) {
	s := p.Log.State()
	var gone []fsm.Leftover
	var failed error
	for _, l := range sp.Leftovers {
		node, ok := s.Node(l.Node)
		switch {
		case !ok || node.Tombstone:
		case !node.Available():
			continue
		default:
			if err := p.detachOne(ctx, &node, l.Shard); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		gone = append(gone, l)
	}
	for _, c := range forgetting(sp.Tenant, gone) {
		failed = errors.Join(failed, p.propose(ctx, sp, c))
	}
	return false, failed
}

// leftoversPerEntry bounds an entry of the log to a quarter of what it takes.
const leftoversPerEntry = 4096

// forgetting is what records that leftovers are gone.
func forgetting(id neon.TenantID, gone []fsm.Leftover) (all []fsm.ForgetLeftovers) {
	for some := range slices.Chunk(gone, leftoversPerEntry) {
		all = append(all, fsm.ForgetLeftovers{Tenant: id, Leftovers: some})
	}
	return all
}

// warm lets the secondaries of the children begin to download without waiting for
// the next round of heatmaps. Nothing depends on it.
func (p *Splitter) warm(ctx context.Context, id neon.TenantID) {
	s := p.Log.State()
	tenant, ok := s.Tenant(id)
	if !ok || tenant.Policy.WantedSecondaries() == 0 {
		return
	}
	if err := decide.Await(ctx, p.Reconciler, s.Index, tenant.Shards()...); err != nil {
		p.Logger.Info("Secondaries are not kicked after a split", "tenant", id.String(), "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, decide.ShortWait)
	defer cancel()
	s = p.Log.State()
	var g errgroup.Group
	g.SetLimit(callsAtOnce)
	for sh := range s.TenantShards(id) {
		g.Go(func() error {
			if err := p.warmOne(ctx, s, &sh); err != nil && ctx.Err() == nil {
				p.Logger.Info("A secondary is not kicked after a split", "shard", sh.ID.String(),
					"err", err)
			}
			return nil
		})
	}
	_ = g.Wait()
}

func (p *Splitter) warmOne(ctx context.Context, s *fsm.State, sh *fsm.Shard) error {
	node, ok := s.Node(sh.Attached)
	if !ok || len(sh.Secondary) == 0 {
		return nil
	}
	if err := p.Pageservers.HeatmapUpload(ctx, &node, sh.ID); err != nil {
		return err
	}
	for _, id := range sh.Secondary {
		if node, ok := s.Node(id); ok && node.Available() {
			if _, _, err := p.Pageservers.SecondaryDownload(ctx, &node, sh.ID, 0); err != nil {
				return err
			}
		}
	}
	return nil
}
