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
// What an earlier try of the request has done is not done again, whatever has become of it
// since. Then nothing is decided, and the index is that of its entry. A request, or a part
// of one, commits once.
func Commit(ctx context.Context, log Log, decide Decision) (uint64, error) {
	if index, done, err := Earlier(ctx, log); done || err != nil {
		return index, err
	}
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
		case len(r.Refused) > 0:
			if _, kept := log.State().Done(id); kept { // below the second level
				id = fsm.RequestID{}
			}
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
