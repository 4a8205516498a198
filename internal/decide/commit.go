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
// A command that is recognised as done proves that it was done, not that it still
// holds: a client may have used one request id for several requests. So the
// decision is made once more, on a state that holds the command. If there is still
// something to change, it is proposed without a name.
func Commit(ctx context.Context, log Log, decide Decision) (uint64, error) {
	id := RequestID(ctx)
	var refused error
	for range Tries {
		s, c, err := decideFirmly(ctx, log, decide)
		if err != nil || c == nil {
			return s.Index, err
		}
		r, err := log.Propose(ctx, id, c)
		switch {
		case r.Err != nil && r.Err.Code == neon.Conflict:
			refused = err
		case err != nil:
			return 0, err
		case r.Duplicate:
			id = fsm.RequestID{}
		case len(r.Refused) > 0:
			// The entry was taken and remembered, but not for everything.
			id = fsm.RequestID{}
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

// decideFirmly decides on the newest local state. A leader that has just been
// elected may not have applied everything that was acknowledged. So a refusal, and
// finding nothing to do, count only on a linearizable read. A command is checked by
// the log anyway.
func decideFirmly(ctx context.Context, log Log, decide Decision) (*fsm.State, fsm.Command, error) {
	s := log.State()
	c, err := decide(s)
	if err == nil && c != nil {
		return s, c, nil
	}
	fresh, rerr := log.ReadState(ctx)
	switch {
	case rerr != nil:
		return s, nil, rerr
	case fresh.Index == s.Index:
		return s, c, err
	}
	c, err = decide(fresh)
	return fresh, c, err
}
