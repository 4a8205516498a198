package leadership

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
)

// slowNotice is how often a warning says that the work of a term does not end.
const slowNotice = 10 * time.Second

// stepDown gives leadership away on request, one time at a time: requests that
// come meanwhile share the outcome.
type stepDown struct {
	give func(context.Context) error // gives leadership away
	log  *slog.Logger

	mu      sync.Mutex
	running chan struct{}       // closed when the present one is over; nil: none
	term    chan struct{}       // closed when the work of the present term has ended; nil: none
	seen    neon.GlobalObserved // at the end of the term that is given away
	last    neon.GlobalObserved // the answer of the last one
	err     error
}

// TermBegins marks the beginning of a term's work, and the returned function its end.
func (l *Leadership) TermBegins() (ended func()) { return l.stepDown.begin() }

// TermEnds must be called when nothing of a term runs any more and what it saw is still
// known. seen is called only if it is of interest.
func (l *Leadership) TermEnds(seen func() neon.GlobalObserved) { l.stepDown.keep(seen) }

// StepDown hands leadership to another instance, stops the work of the term and
// tells what was seen under it. On a replica that does not lead it repeats what it
// told when it last did. It is not given up when ctx ends.
func (l *Leadership) StepDown(ctx context.Context) (neon.GlobalObserved, error) {
	done := l.stepDown.start(l.IsLeader)
	if done == nil {
		return l.stepDown.lastSeen(), nil
	}
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return l.stepDown.outcome()
}

// transfer hands leadership to the healthiest other member.
func (l *Leadership) transfer(ctx context.Context) error {
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

func (s *stepDown) begin() (ended func()) {
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

func (s *stepDown) keep(seen func() neon.GlobalObserved) {
	s.mu.Lock()
	wanted := s.running != nil
	s.mu.Unlock()
	if !wanted {
		return
	}
	all := seen()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = all
}

// start joins the step down that runs, or begins one if this replica leads. The result
// is closed when it is over, and nil when there is none.
func (s *stepDown) start(leads func() bool) (done chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil && leads() {
		s.running, s.seen = make(chan struct{}), nil
		go s.run(s.term) // wait joins it
	}
	return s.running
}

func (s *stepDown) lastSeen() neon.GlobalObserved {
	seen, _ := s.outcome()
	return seen
}

// outcome is what the last step down has to say.
func (s *stepDown) outcome() (neon.GlobalObserved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return neon.GlobalObserved{}, s.err
	}
	return s.last, s.err
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
	tick := time.NewTicker(slowNotice)
	defer tick.Stop()
	for {
		select {
		case <-term:
			return
		case <-tick.C:
			s.log.Warn("Stopping reconciliations during step down is taking too long",
				"elapsed_sec", int(time.Since(begun).Seconds()))
		}
	}
}

// wait joins the step down that runs.
func (s *stepDown) wait() {
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	if running != nil {
		<-running
	}
}
