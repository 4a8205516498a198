package handover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/neondb"
	"quorate/internal/neonstate"
)

// Step is one step of a cut-over. After each one the process may end, and be run again.
type Step string

// The steps, in their order.
const (
	StepPlanned   Step = "planned"      // nothing has changed
	StepStopped   Step = "stepped_down" // the old controller has stopped working
	StepTaken     Step = "taken"        // the database is ours, and nobody can write there
	StepConverted Step = "converted"    // the state was read again, and is complete
	StepHandedOut Step = "handed_out"   // a cluster may be founded from now on
	StepSaved     Step = "saved"        // the snapshot is there
)

// Owner changes whom a database belongs to, as neondb.Database does.
type Owner interface {
	Rehearse(ctx context.Context, prior *neondb.Leader, own neondb.Leader) error
	Take(
		ctx context.Context, id string, prior *neondb.Leader, own neondb.Leader,
	) (neondb.Mark, error)
	HandOut(ctx context.Context, id string) error
	Again(ctx context.Context, was, id string) (neondb.Mark, error)
	GiveBack(ctx context.Context, handedOut bool) (neondb.Mark, error)
}

// CutOver says how to take over.
type CutOver struct {
	Source
	Owner Owner

	// StepDown makes the controller at an address stop, and returns what it has observed.
	StepDown func(ctx context.Context, address string) (neon.GlobalObserved, error)

	// Answers tells whether a controller at an address still runs.
	Answers func(ctx context.Context, address string) bool

	// Stopped says that the old controller does not run, so that it need not answer.
	Stopped bool

	// Again says that a state that was handed out is to be handed out once more, in other
	// numbers. No cluster may run that was founded from the first one.
	Again bool

	ID  string        // names this take-over, unless it goes on with another
	Own neondb.Leader // stands as the leader from then on

	// Save writes a snapshot, whole or not at all.
	Save func(write func(io.Writer) error) error

	// Rehearse does what Save does, and leaves nothing.
	Rehearse func(write func(io.Writer) error) error

	// Wrap makes a saved snapshot of a state.
	Wrap func(w io.Writer, origin string, created time.Time, state io.WriterTo) error

	// After, if not nil, is called after each step. An error ends the cut-over there.
	After func(Step) error
}

// Do takes over, or goes on with it.
func (c CutOver) Do(ctx context.Context) (*Report, error) {
	after := c.After
	if after == nil {
		after = func(Step) error { return nil }
	}
	r, planned, err := read(ctx, c.Source, nil)
	if err != nil {
		return nil, err
	}
	if r.Mark != nil && r.Mark.Kind != neondb.Taken {
		return r, fmt.Errorf("%w: take the one that is in use", ErrIsCopy)
	}
	if err := errors.Join(blocked(r), after(StepPlanned)); err != nil {
		return r, err
	}
	var seen neonstate.Seen
	switch {
	case r.Mark != nil && r.Mark.HandedOut != nil:
		if err := c.again(ctx, r.Mark); err != nil {
			return r, err
		}
	case r.Mark == nil:
		if err := c.rehearse(ctx, r, planned.State); err != nil {
			return r, fmt.Errorf("nothing has changed: %w", err)
		}
		if seen, err = c.stepDown(ctx, r.Leader); err != nil {
			return r, err
		}
		if err := after(StepStopped); err != nil {
			return r, leaderless(err)
		}
		if _, err := c.Owner.Take(ctx, c.ID, r.Leader, c.Own); err != nil {
			return r, leaderless(err)
		}
	}
	if err := after(StepTaken); err != nil {
		return r, leaderless(err)
	}
	r, err = c.save(ctx, seen, after)
	return r, leaderless(err)
}

// rehearse proves, before anybody stops, that what comes then can work.
func (c CutOver) rehearse(ctx context.Context, r *Report, s *fsm.State) error {
	if err := verify(s); err != nil {
		return err
	}
	err := c.Rehearse(func(w io.Writer) error {
		return c.Wrap(w, c.ID, time.Time{}, fsm.SnapshotWriter{State: s})
	})
	if err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	return c.Owner.Rehearse(ctx, r.Leader, c.Own)
}

// leaderless says how things stand when a step fails after the first one that stops work.
func leaderless(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w. The existing controller HAS stepped down, or was stopped: nobody leads "+
		"until this command is run again, or --abort has handed back what was taken, and the "+
		"existing controller is restarted", err)
}

// stepDown asks the old controller to stop.
func (c CutOver) stepDown(
	ctx context.Context, leader *neondb.Leader,
) (neonstate.Seen, error) {
	if leader == nil || c.Stopped {
		if leader == nil && !c.Stopped {
			return nil, fmt.Errorf("%w: the database does not say who leads, so nobody can be asked: "+
				"stop it, and say --stopped", ErrLeaderAlive)
		}
		if leader != nil && c.Answers(ctx, leader.Address) {
			return nil, fmt.Errorf("%w: it answers at %s: stop it, so that it cannot come back by "+
				"itself, or leave --stopped out", ErrLeaderAlive, leader.Address)
		}
		return nil, nil
	}
	observed, err := c.StepDown(ctx, leader.Address)
	if errors.Is(err, ErrUnsure) {
		return nil, fmt.Errorf("%w: %s: %w: then nobody leads until this command is run again, "+
			"which may be done at once, or that controller is restarted", ErrLeaderAlive,
			leader.Address, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; stop it, and say --stopped", ErrLeaderAlive,
			leader.Address, err)
	}
	return seenBy(observed), nil
}

// again takes a state anew that was handed out.
func (c CutOver) again(ctx context.Context, m *neondb.Mark) error {
	if !c.Again {
		return fmt.Errorf("%w at %s: a cluster can have been founded from that snapshot, and a "+
			"second one would issue the same numbers. If none was, or it runs no more, delete "+
			"that file and say --again: the next snapshot has larger numbers",
			neondb.ErrHandedOut, m.HandedOut.UTC().Format(time.RFC3339))
	}
	_, err := c.Owner.Again(ctx, m.ID, c.ID)
	return err
}

// save reads what nobody can change any more, and writes it.
func (c CutOver) save(
	ctx context.Context, seen neonstate.Seen, after func(Step) error,
) (*Report, error) {
	r, done, err := read(ctx, c.Source, seen)
	if err != nil {
		return nil, err
	}
	if r.Mark == nil {
		return r, neondb.ErrNotTaken
	}
	if err := blocked(r); err != nil {
		return r, fmt.Errorf("%w. The old controller has stopped, and its database is ours: go on "+
			"with --accept, or hand it back with --abort", err)
	}
	if err := verify(done.State); err != nil {
		return r, err
	}
	if err := after(StepConverted); err != nil {
		return r, err
	}
	if err := c.Owner.HandOut(ctx, r.Mark.ID); err != nil {
		if errors.Is(err, neondb.ErrHandedOut) {
			err = fmt.Errorf("%w: use the snapshot of that one", err)
		}
		return r, err
	}
	if err := after(StepHandedOut); err != nil {
		return r, err
	}
	err = c.Save(func(w io.Writer) error {
		return c.Wrap(w, r.Mark.ID, r.Mark.At, fsm.SnapshotWriter{State: done.State})
	})
	if err != nil {
		return r, fmt.Errorf("write the snapshot: %w", err)
	}
	return r, after(StepSaved)
}

// verify makes sure that the state can be read again as it is.
func verify(s *fsm.State) error {
	var b bytes.Buffer
	if _, err := (fsm.SnapshotWriter{State: s}).WriteTo(&b); err != nil {
		return err
	}
	again, err := fsm.ReadSnapshot(&b)
	if err != nil {
		return fmt.Errorf("the state cannot be read again: %w", err)
	}
	if again.Hash() != s.Hash() {
		return errors.New("the state is another one when it is read again")
	}
	return nil
}

// Abort hands the database back to who led before. unused says that no cluster was founded
// from the snapshot, if there is one.
func Abort(ctx context.Context, db Owner, unused bool) (neondb.Mark, error) {
	return db.GiveBack(ctx, unused)
}
