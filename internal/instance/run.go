package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/internal/leadership"
	"quorate/internal/serve"
	"quorate/internal/wait"
)

// Entry says what an instance does when another one uses its data directory.
type Entry uint8

// The ways to enter.
const (
	EnterWhenFree    Entry = iota // it gives up
	EnterAsCandidate              // it asks the other one to step down
)

const (
	// turnPoll is how often a leader checks whether another instance asks for its turn,
	// and how often the others check whether the turn is theirs.
	turnPoll = 25 * time.Millisecond

	// freeTimeout is how long EnterWhenFree waits for a process that is just ending.
	freeTimeout = 5 * time.Second

	// waitingNotice is how often a candidate says whom it waits for.
	waitingNotice = 10 * time.Second
)

// Instance is one use of the data directory, from Open on. It answers requests until it
// is closed.
type Instance interface {
	// Start begins its work. The channel tells what makes going on pointless.
	Start(ctx context.Context) (failed <-chan error)

	// Retire ends its work and its use of the data directory. It forwards all requests to
	// those who come after it.
	Retire(ctx context.Context, next leadership.Successor) error

	// Close ends everything. It returns when the last request is answered.
	Close(ctx context.Context) error
}

// Leader leads the cluster of one that is in the data directory.
type Leader interface {
	IsLeader() bool
	StepDown(ctx context.Context) (neon.GlobalObserved, error)
}

// Opened is an instance that uses the data directory.
type Opened struct {
	Instance
	Leader  Leader
	Handler http.Handler // of its requests
	Server  string       // its id in the cluster
}

// Options are what an instance is made of.
type Options struct {
	Dir     string // the data directory
	Address string // the base URL of our API
	Entry   Entry

	// Server serves Waiting until the first turn. Run closes it.
	Server  *serve.Server
	Waiting http.Handler

	// Open begins to use the data directory. The error is cluster.ErrDataDirInUse while
	// another instance uses it. stepDown gives leadership away.
	Open func(ctx context.Context, stepDown func(context.Context) error) (Opened, error)

	Logger *slog.Logger
}

// runner is one of several instances on one machine that take turns at one data
// directory. It has at most one Opened that uses the directory.
type runner struct {
	Options
	log   *slog.Logger
	turns *turns
	asked chan chan error // a step down; the answer is sent when the turn is over
	wg    sync.WaitGroup

	stopping chan struct{} // closed when nothing takes from asked any more

	now    *Opened      // of the present turn, or of the last one; nil before the first
	failed <-chan error // of the present turn

	successors successors
}

// Run serves in a data directory that other instances on this machine may use too, one
// at a time: the one that holds its lock leads, the others forward to it. An instance
// whose turn is over takes over again when its successors have ended. It returns nil
// after ctx has ended.
func Run(ctx context.Context, o Options) (err error) {
	r := &runner{
		Options: o, log: o.Logger, asked: make(chan chan error), stopping: make(chan struct{}),
	}
	if r.turns, err = newTurns(o.Dir, o.Address); err != nil {
		o.Server.Close()
		return err
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	o.Server.Start(base, o.Waiting)
	r.log.Info("Serving HTTP", "address", o.Address)
	err = r.enter(ctx)
	for err == nil && ctx.Err() == nil {
		if err = r.hold(ctx); err == nil && ctx.Err() == nil {
			err = r.standBy(ctx)
		}
	}
	r.log.Info("Stopping")
	if ctx.Err() != nil {
		err = nil // what it was doing then does not matter
	}
	return errors.Join(err, r.stop(context.WithoutCancel(ctx)))
}

// enter waits for the first turn.
func (r *runner) enter(ctx context.Context) error {
	defer r.turns.withdraw()
	begun, notice := time.Now(), time.Time{}
	for {
		mayTry, err := r.mayTry()
		if err != nil {
			return err
		}
		last := r.turns.last()
		if mayTry {
			if err = r.begin(ctx); !errors.Is(err, cluster.ErrDataDirInUse) {
				return err
			}
			if r.Entry == EnterWhenFree && time.Since(begun) > freeTimeout {
				return fmt.Errorf(
					"%w, by the instance at %s; --start-as-candidate asks it to step down", err,
					last.Address)
			}
		}
		if time.Since(notice) > waitingNotice {
			notice = time.Now()
			r.log.Info("Waiting for the turn at the data directory", "leader", last.Address,
				"leader_pid", last.PID)
		}
		if wait.Sleep(ctx, turnPoll) != nil {
			return nil
		}
	}
}

// mayTry reports whether this instance may try to take its first turn.
func (r *runner) mayTry() (bool, error) {
	if r.Entry == EnterWhenFree || r.turns.candidate() {
		return true, nil
	}
	return r.turns.ask()
}

// begin opens the data directory and starts to lead. The error is
// cluster.ErrDataDirInUse while it is another instance's turn.
func (r *runner) begin(ctx context.Context) error {
	opened, err := r.Open(ctx, r.stepDown)
	if err != nil {
		return err
	}
	if err := r.turns.take(); err != nil {
		return errors.Join(err, opened.Close(ctx))
	}
	before := r.now
	r.now, r.failed = &opened, opened.Start(context.WithoutCancel(ctx))
	r.Server.Handle(opened.Handler)
	r.successors.begin(r.turns.self)
	r.log.Info("It is this instance's turn at the data directory", "address", r.Address,
		"server", opened.Server)
	if before != nil {
		// when its last request is answered
		r.wg.Go(func() { _ = before.Close(context.WithoutCancel(ctx)) })
	}
	return nil
}

// hold leads until ctx ends or another instance is to lead.
func (r *runner) hold(ctx context.Context) error {
	tick := time.NewTicker(turnPoll)
	defer tick.Stop()
	asking := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-r.failed:
			r.log.Error("This replica cannot go on", "err", err)
			return err
		case done := <-r.asked:
			err := r.retire(context.WithoutCancel(ctx))
			done <- err
			return err
		case <-tick.C:
		}
		if !r.turns.wanted() {
			continue
		}
		if !r.now.Leader.IsLeader() {
			return r.retire(context.WithoutCancel(ctx))
		}
		if !asking {
			asking = true
			r.log.Info("Stepping down for another instance")
			leader := r.now.Leader
			r.wg.Go(func() { _, _ = leader.StepDown(context.WithoutCancel(ctx)) })
		}
	}
}

// stepDown ends the turn at the API's request.
func (r *runner) stepDown(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case r.asked <- done:
		return <-done
	case <-r.stopping:
		return cluster.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retire ends the turn: nothing of this instance uses the data directory after it.
func (r *runner) retire(ctx context.Context) error {
	r.successors.retire(r.turns.wanted())
	return r.now.Retire(ctx, &r.successors)
}

// standBy forwards until the turn is this instance's again: another instance has had
// it, or asked for it, and no such instance lives any more.
func (r *runner) standBy(ctx context.Context) error {
	tick := time.NewTicker(turnPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case done := <-r.asked: // was on its way when the turn ended
			done <- nil
			continue
		case <-tick.C:
		}
		last, wanted := r.turns.last(), r.turns.wanted()
		if !r.successors.over(last, r.turns.self, wanted) {
			continue
		}
		if err := r.begin(ctx); !errors.Is(err, cluster.ErrDataDirInUse) {
			return err
		}
	}
}

// stop lets requests finish and closes everything.
func (r *runner) stop(ctx context.Context) error {
	r.Server.Stop(ctx)
	close(r.stopping)
	var err error
	if r.now != nil {
		err = r.now.Close(ctx)
	}
	r.wg.Wait()
	return err
}
