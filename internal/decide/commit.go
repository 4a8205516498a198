package decide

import (
	"context"

	"quorate/api/neon"
	"quorate/fsm"
)

// Tries is how often a decision is made before a client hears that others were
// faster every time.
const Tries = 8

// Decision makes one command from a state. A nil command means that nothing is to
// be changed any more.
type Decision func(s *fsm.State) (fsm.Command, error)

// Commit decides and proposes until the log takes it. The index is that of the
// state in which the wish is fulfilled.
//
// What an earlier try of the same request has done is not done again, whatever others have
// changed since. Then the decision is made once more, on a state that holds it, only for
// what it tells the caller. That there was nothing to do is noted for a client that may make
// the request again later.
func Commit(ctx context.Context, log Log, decide Decision) (uint64, error) {
	id := NextStep(ctx)
	var refused error
	for range Tries {
		d, err := decideFirmly(ctx, log, id, decide)
		switch {
		case err != nil || d.done:
			return d.index, err
		case d.command == nil && namedByClient(ctx):
			return d.index, note(ctx, log, id)
		case d.command == nil:
			return d.index, nil
		}
		r, err := log.Propose(ctx, id, d.command)
		switch {
		case r.Err != nil && r.Err.Code == neon.Conflict:
			refused = err
		case err != nil:
			return 0, err
		case r.Duplicate && !log.State().NamesEachChange():
			id = fsm.RequestID{} // it may have been taken for nothing, or taken back
		case r.Duplicate:
			_, _ = decide(log.State())
			return r.Index, nil
		case len(r.Refused) > 0: // it was taken, but for nothing
			refused = neon.Errorf(neon.Conflict, "placement of %s does not hold any more",
				r.Refused[0])
		default:
			return r.Index, nil
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	if refused == nil {
		refused = neon.Errorf(neon.Conflict, "others change the same all the time, please retry")
	}
	return 0, refused
}

// Propose proposes the next change of the request that ctx belongs to, which needs no
// decision. Duplicate in the result says that an earlier try has made it.
func Propose(ctx context.Context, log Log, c fsm.Command) (fsm.Result, error) {
	return log.Propose(ctx, NextStep(ctx), c)
}

// Once makes a change of which the log knows nothing, unless an earlier try of the request
// that ctx belongs to has made it. See Note.
func Once(ctx context.Context, log Log, change func() error) error {
	s, err := log.ReadState(ctx)
	if err != nil {
		return err
	}
	id := NextStep(ctx)
	if _, done := s.Done(id); done {
		return nil
	}
	if err := change(); err != nil {
		return err
	}
	return note(ctx, log, id)
}

// Note notes that the request that ctx belongs to has made a change of which the log knows
// nothing. If the leader dies between the change and the note, the next try makes it again:
// the request is not over then.
func Note(ctx context.Context, log Log) error { return note(ctx, log, NextStep(ctx)) }

// NoteUnchanged notes that the next change of a request was none, for a client that may make
// it again later.
func NoteUnchanged(ctx context.Context, log Log) error {
	if !namedByClient(ctx) {
		return nil
	}
	return Note(ctx, log)
}

// Ended notes that what a request asks for is there, under the name of its change, whoever
// has made the change. A later try finds it done.
func Ended(ctx context.Context, log Log, step fsm.RequestID) error { return note(ctx, log, step) }

func note(ctx context.Context, log Log, id fsm.RequestID) error {
	if id == (fsm.RequestID{}) || !log.State().NamesEachChange() {
		return nil
	}
	_, err := log.Propose(ctx, id, fsm.NoteRequest{})
	return err
}

// decision is what was decided.
type decision struct {
	index   uint64 // of the state that it was decided on, or of the change when it is done
	command fsm.Command
	done    bool // by an earlier try
}

// decideFirmly decides on the newest local state. A leader that has just been
// elected may not have applied everything that was acknowledged. So a refusal, and
// finding nothing to do, count only on a linearizable read. A command is checked by
// the log anyway.
func decideFirmly(
	ctx context.Context, log Log, id fsm.RequestID, decide Decision,
) (decision, error) {
	s := log.State()
	if index, done := s.Done(id); done {
		_, _ = decide(s)
		return decision{index: index, done: true}, nil
	}
	c, err := decide(s)
	if err == nil && c != nil {
		return decision{index: s.Index, command: c}, nil
	}
	fresh, rerr := log.ReadState(ctx)
	switch {
	case rerr != nil:
		return decision{}, rerr
	case fresh.Index == s.Index:
		return decision{index: s.Index, command: c}, err
	}
	if index, done := fresh.Done(id); done {
		_, _ = decide(fresh)
		return decision{index: index, done: true}, nil
	}
	c, err = decide(fresh)
	return decision{index: fresh.Index, command: c}, err
}
