package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"quorate/api"
	"quorate/cluster"
)

// Entry says what an instance does when another one uses its data directory.
type Entry uint8

// The ways to enter.
const (
	EnterWhenFree    Entry = iota // it gives up
	EnterAsCandidate              // it asks the other one to step down
)

const (
	// turnPoll is how often a leader looks whether somebody asks for its turn, and
	// how often the others look whether the turn is theirs.
	turnPoll = 25 * time.Millisecond

	// freePatience is how long EnterWhenFree waits for a process that is just ending.
	freePatience = 5 * time.Second

	// waitingNotice is how often a candidate says whom it waits for.
	waitingNotice = 10 * time.Second
)

// shared is one of several instances on one machine that take turns at one data
// directory. It has at most one App that uses the directory; an App whose turn is
// over goes on answering, by forwarding to whoever came after it.
type shared struct {
	cfg   Config
	log   *slog.Logger
	web   *web
	turns *turns
	asked chan chan error // a step down; the answer is sent when the turn is over
	wg    sync.WaitGroup

	stopping chan struct{} // closed when nobody takes from asked any more

	app  *App  // of the present turn, or of the last one; nil before the first
	work *work // nil between turns

	mu      sync.Mutex
	leader  holder // as far as is known; zero: nobody
	awaited bool   // somebody else will lead, or will have led, after our turn
}

// RunShared serves like New and Run, in a data directory that other instances on
// this machine may use too, one at a time: the one that holds its lock leads, the
// others forward to it. An instance whose turn is over takes over again when its
// successors have ended. It returns nil after ctx has ended.
func RunShared(ctx context.Context, cfg Config, entry Entry) (err error) {
	cfg.fill()
	w, err := listen(&cfg)
	if err != nil {
		return err
	}
	if cfg.HTTP.Address == "" {
		cfg.HTTP.Address = w.url()
	}
	s := &shared{
		cfg: cfg, log: cfg.Logger, web: w, asked: make(chan chan error),
		stopping: make(chan struct{}),
	}
	if s.turns, err = newTurns(cfg.Cluster.DataDir, cfg.HTTP.Address); err != nil {
		w.abandon()
		return err
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	w.serve(api.NewCandidate(), base)
	s.log.Info("Serving HTTP", "address", cfg.HTTP.Address)
	err = s.enter(ctx, entry)
	for err == nil && ctx.Err() == nil {
		if err = s.hold(ctx); err == nil && ctx.Err() == nil {
			err = s.standBy(ctx)
		}
	}
	s.log.Info("Stopping")
	if ctx.Err() != nil {
		err = nil // what it was doing then does not matter
	}
	return errors.Join(err, s.stop(context.WithoutCancel(ctx)))
}

// enter waits for the first turn.
func (s *shared) enter(ctx context.Context, entry Entry) error {
	defer s.turns.sit()
	begun, notice := time.Now(), time.Time{}
	for {
		standing, err := s.stands(entry)
		if err != nil {
			return err
		}
		last := s.turns.last()
		if standing {
			if err = s.begin(ctx); !errors.Is(err, cluster.ErrDataDirInUse) {
				return err
			}
			if entry == EnterWhenFree && time.Since(begun) > freePatience {
				return fmt.Errorf(
					"%w, by the instance at %s; --start-as-candidate asks it to step down", err,
					last.Address)
			}
		}
		if time.Since(notice) > waitingNotice {
			notice = time.Now()
			s.log.Info("Waiting for the turn at the data directory", "leader", last.Address,
				"leader_pid", last.PID)
		}
		if !sleep(ctx, turnPoll) {
			return nil
		}
	}
}

// stands tells whether this instance may try to take its first turn.
func (s *shared) stands(entry Entry) (bool, error) {
	if entry == EnterWhenFree || s.turns.mine != nil {
		return true, nil
	}
	return s.turns.stand()
}

// begin opens the data directory and starts to lead. The error is
// cluster.ErrDataDirInUse while it is somebody else's turn.
func (s *shared) begin(ctx context.Context) error {
	a, err := open(ctx, s.cfg, s.web)
	if err != nil {
		return err
	}
	a.leadership.stepped.give = s.stepDown
	if err := s.turns.take(); err != nil {
		return errors.Join(err, a.close(ctx))
	}
	before := s.app
	s.app, s.work = a, a.begin(context.WithoutCancel(ctx))
	s.web.handle(a.api)
	s.mu.Lock()
	s.leader, s.awaited = s.turns.self, false
	s.mu.Unlock()
	s.log.Info("It is this instance's turn at the data directory", "address", s.cfg.HTTP.Address,
		"server", a.cluster.ID())
	if before != nil {
		// when its last request is answered
		s.wg.Go(func() { _ = before.close(context.WithoutCancel(ctx)) })
	}
	return nil
}

// hold leads until ctx ends or somebody else is to lead.
func (s *shared) hold(ctx context.Context) error {
	tick := time.NewTicker(turnPoll)
	defer tick.Stop()
	asking := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.app.failed:
			s.log.Error("This replica cannot go on", "err", err)
			return err
		case done := <-s.asked:
			err := s.retire(context.WithoutCancel(ctx))
			done <- err
			return err
		case <-tick.C:
		}
		if !s.turns.wanted() {
			continue
		}
		if !s.app.leadership.IsLeader() {
			return s.retire(context.WithoutCancel(ctx))
		}
		if !asking {
			asking = true
			s.log.Info("Stepping down for another instance")
			a := s.app
			s.wg.Go(func() { _, _ = a.leadership.StepDown(context.WithoutCancel(ctx)) })
		}
	}
}

// stepDown is what the API asks for.
func (s *shared) stepDown(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case s.asked <- done:
		return <-done
	case <-s.stopping:
		return cluster.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retire ends the turn: nothing of this instance uses the data directory after it.
func (s *shared) retire(ctx context.Context) error {
	wanted := s.turns.wanted()
	s.mu.Lock()
	s.leader, s.awaited = holder{}, wanted
	s.mu.Unlock()
	s.app.retire(s)
	s.work.end()
	s.work = nil
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	return s.app.closeCluster(ctx)
}

// standBy forwards until the turn is this instance's again: somebody else has had
// it, or asked for it, and no such instance lives any more.
func (s *shared) standBy(ctx context.Context) error {
	tick := time.NewTicker(turnPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case done := <-s.asked: // was on its way when the turn ended
			done <- nil
			continue
		case <-tick.C:
		}
		last, wanted := s.turns.last(), s.turns.wanted()
		others := last.Name != s.turns.self.Name
		s.mu.Lock()
		if others {
			s.leader = last
		}
		s.awaited = s.awaited || wanted || others
		try := s.awaited && !wanted
		s.mu.Unlock()
		if !try {
			continue
		}
		if err := s.begin(ctx); !errors.Is(err, cluster.ErrDataDirInUse) {
			return err
		}
	}
}

// stop lets requests finish and closes everything.
func (s *shared) stop(ctx context.Context) error {
	s.web.stop(ctx)
	close(s.stopping)
	if s.work != nil {
		s.work.end()
	}
	var err error
	if s.app != nil {
		err = s.app.close(ctx)
	}
	s.wg.Wait()
	return err
}

// successorOf is how an App whose turn is over sees who came after it.
type successorOf struct{ *shared }

func (s successorOf) current() (name, address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leader.Name, s.leader.Address
}

func (s successorOf) expected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.awaited
}

// retire makes the App forward everything from here on.
func (a *App) retire(s *shared) {
	var next successor = successorOf{s}
	a.leadership.retired.Store(&next)
}

// sleep reports false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
