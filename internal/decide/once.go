package decide

import (
	"context"

	"quorate/fsm"
)

// Done finds the entry by which an earlier try has carried out the request that ctx
// belongs to, as far as a state knows.
func Done(ctx context.Context, s *fsm.State) (index uint64, done bool) {
	if !Repeated(ctx) {
		return 0, false
	}
	return s.Done(RequestID(ctx))
}

// Earlier is Done on a state that holds everything that was acknowledged.
func Earlier(ctx context.Context, log Log) (index uint64, done bool, err error) {
	if !Repeated(ctx) {
		return 0, false, nil
	}
	s, err := log.ReadState(ctx)
	if err != nil {
		return 0, false, err
	}
	index, done = Done(ctx, s)
	return index, done, nil
}

// Once runs what has no command in the log, and notes there that it was done. What an
// earlier try has noted is not run again. A try that ended before its note, with its
// leader, is run again: what runs has to bear that.
func Once(ctx context.Context, log Log, run func() error) error {
	if _, done, err := Earlier(ctx, log); done || err != nil {
		return err
	}
	if err := run(); err != nil {
		return err
	}
	return Note(ctx, log)
}

// Begin notes in the log that the request begins. The index is that of the entry of its
// first try, so that whatever came between two tries is seen. Without a request, or below
// the second level, it is that of a state that holds everything that was acknowledged.
func Begin(ctx context.Context, log Log) (index uint64, err error) {
	id := RequestID(Part(ctx, "begin"))
	if id == (fsm.RequestID{}) || fsm.Admit(log.State(), fsm.NoteRequest{}) != nil {
		s, err := log.ReadState(ctx)
		if err != nil {
			return 0, err
		}
		return s.Index, nil
	}
	r, err := log.Propose(ctx, id, fsm.NoteRequest{})
	return r.Index, err
}

// Note says in the log that the request was carried out, unless an entry says so. Work that
// no client has asked for is not noted.
func Note(ctx context.Context, log Log) error {
	id := RequestID(ctx)
	s := log.State()
	if _, done := s.Done(id); done || id == (fsm.RequestID{}) ||
		fsm.Admit(s, fsm.NoteRequest{}) != nil {
		return nil
	}
	_, err := log.Propose(ctx, id, fsm.NoteRequest{})
	return err
}
