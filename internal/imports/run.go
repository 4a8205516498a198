package imports

import (
	"context"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/duty"
	"quorate/internal/wait"
)

// Changed is to be called after each batch of applied entries, on the applying
// goroutine; it returns at once.
func (m *Importer) Changed(_ *fsm.State, c fsm.Touched) {
	if c.Timelines {
		m.work.Set()
	}
}

// Run ends the imports of which all shards have reported, for as long as this
// replica leads. It returns when ctx ends.
func (m *Importer) Run(ctx context.Context) {
	var ending duty.Keyed[neon.TimelineRef]
	defer ending.Wait()
	for {
		for i := range m.Log.State().Imports() {
			if ref := i.Ref(); !i.Finished && i.Complete() {
				ending.Start(ref, func() { m.drive(ctx, ref) }, m.work.Set)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-m.work:
		}
	}
}

// drive ends an import. It holds the turn all the time, so that a deletion that has
// interrupted it and got the turn knows that nothing follows.
func (m *Importer) drive(ctx context.Context, ref neon.TimelineRef) {
	held, cancel := context.WithCancel(ctx)
	defer cancel()
	release, err := m.Turns.Take(ctx, ref, cancel)
	if err != nil {
		return
	}
	defer release()
	if err := m.end(held, ref); err != nil && held.Err() == nil {
		m.Logger.Info("The import of a timeline is not finished yet", "timeline", ref.String(),
			"err", err)
		_ = wait.Sleep(held, activatePause) // and then begin again
	}
}
