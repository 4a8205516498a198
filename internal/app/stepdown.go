package app

import (
	"context"
	"errors"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
)

// slowStep is how often an operator is told that the work of a term does not end.
const slowStep = 10 * time.Second

// stepDown gives leadership away on request, one time at a time: requests that
// come meanwhile share the outcome.
type stepDown struct {
	give func(context.Context) error // gives leadership away
	look func() neon.GlobalObserved  // what was seen, while the term's memory is there
	slow func(elapsed time.Duration) // the work of the term does not end

	mu      sync.Mutex
	running chan struct{}       // closed when the present one is over; nil: none
	term    chan struct{}       // closed when the work of the present term has ended; nil: none
	seen    neon.GlobalObserved // at the end of the term that is given away
	last    neon.GlobalObserved // what the last one told
	err     error
}

// began marks the beginning of a term's work, and the returned function its end.
func (s *stepDown) began() (ended func()) {
	term := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = term
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.term = nil
		close(term)
	}
}

// termEnded is called when the reconciler of a term has stopped but still knows
// what it saw.
func (s *stepDown) termEnded() {
	s.mu.Lock()
	wanted := s.running != nil
	s.mu.Unlock()
	if !wanted {
		return
	}
	seen := s.look()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = seen
}

// StepDown hands leadership to another instance, stops the work of the term and
// tells what was seen under it. On a replica that does not lead it tells what it
// told when it last did. It is not given up when ctx ends.
func (l *leadership) StepDown(ctx context.Context) (neon.GlobalObserved, error) {
	s := &l.stepped
	s.mu.Lock()
	done := s.running
	if done == nil && !l.IsLeader() {
		defer s.mu.Unlock()
		return s.told(), nil
	}
	if done == nil {
		done = make(chan struct{})
		s.running, s.seen = done, nil
		term := s.term
		go s.run(term) // wait joins it
	}
	s.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told(), s.err
}

func (s *stepDown) told() neon.GlobalObserved {
	if s.last == nil {
		return neon.GlobalObserved{}
	}
	return s.last
}

// run gives leadership away and waits until the work of the term has ended.
func (s *stepDown) run(term chan struct{}) {
	err := s.give(context.Background())
	if err == nil && term != nil {
		s.join(term)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err == nil {
		s.last = s.seen
	}
	close(s.running)
	s.running = nil
}

func (s *stepDown) join(term chan struct{}) {
	begun := time.Now()
	tick := time.NewTicker(slowStep)
	defer tick.Stop()
	for {
		select {
		case <-term:
			return
		case <-tick.C:
			s.slow(time.Since(begun))
		}
	}
}

// transfer hands leadership to the healthiest other member.
func (l *leadership) transfer(ctx context.Context) error {
	err := l.cluster.TransferLeadership(ctx, "")
	switch {
	case err == nil, errors.Is(err, cluster.ErrNotLeader):
		return nil
	case errors.Is(err, cluster.ErrPeerUnreachable):
		return &neon.Error{
			Code: neon.Unavailable, Msg: "There is no healthy replica to hand leadership to",
			Err: err,
		}
	default:
		return &neon.Error{
			Code: neon.Unavailable, Msg: "Leadership was not handed over: " + err.Error(), Err: err,
		}
	}
}
