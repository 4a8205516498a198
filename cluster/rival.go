package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A leader whose write is overdue gives way only if the others can do without it.
// Servers often share what makes a write slow: one disk under three processes, one
// array under three machines. Then an election gains nothing and costs a round of
// everything a new leader does, so the leader asks first: each voter makes a test
// write behind the log writes that it has under way. Those that are soon done with
// it, and healthy for long enough to be elected, must be a majority by themselves.
//
// Otherwise the leader waits on, and asks again, for Timeouts.Patience: a leader that
// cannot write gives way within a second, whatever the others can do.

var errNoRival = errors.New("cluster: not healthy enough to lead")

// lookForRivals is called when a write of a leader is overdue. The channel is closed
// when the leader should give way: when a majority without this server is known to
// be able to write, or when waiting for one has taken the patience. What it starts
// ends with ctx.
func (c *Cluster) lookForRivals(ctx context.Context, patience time.Duration) <-chan struct{} {
	hangs := make(chan struct{})
	look := func() {
		c.awaitRivals(ctx, patience)
		if ctx.Err() == nil {
			close(hangs)
		}
	}
	if patience <= 0 || !c.background.Go(look) {
		close(hangs)
	}
	return hangs
}

func (c *Cluster) awaitRivals(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil && c.ctx.Err() == nil {
		round, done := context.WithTimeout(ctx, c.timeouts.Patience/3)
		found := c.majorityWrites(round)
		if !found {
			<-round.Done()
		}
		done()
		if found {
			return
		}
	}
}

// majorityWrites asks all other voters at once, until enough of them have written or
// too few are left to wait for.
func (c *Cluster) majorityWrites(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	wrote := make(chan bool, maxServers)
	voters, asked := 0, 0
	for _, s := range c.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		l := c.peers.link(string(s.ID))
		if string(s.ID) == c.id || l == nil || asked == maxServers {
			continue
		}
		asked++
		calls.Go(func() {
			_, err := l.call(ctx, callTestWrite, nil)
			wrote <- err == nil
		})
	}
	missing := voters/2 + 1
	for ; asked >= missing && missing > 0; asked-- {
		if <-wrote {
			missing--
		}
	}
	return missing == 0
}

// testWrite proves that this server could lead: its disk has been well for long
// enough, and a write that waits for the file system's journal and for the log
// writes under way comes back.
func (c *Cluster) testWrite(ctx context.Context) error {
	if !c.health.fit() {
		return errNoRival
	}
	write := c.journalTest
	if write == nil {
		write = c.canary
	}
	if write == nil {
		return errNoRival
	}
	if err := c.guard.test(ctx, write); err != nil {
		return err
	}
	if !c.health.fit() {
		return errNoRival
	}
	return nil
}

// test runs write after what is being written now, and gives up when ctx ends. A
// write that hangs then is left to the goroutine that writes; the next test waits
// behind it.
func (g *guard) test(ctx context.Context, write func() error) error {
	j := newJob(write, 0)
	select {
	case g.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-g.done:
		return ErrClosed
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-g.done:
		return ErrClosed
	}
}

// testFile is changed in size by each test write, so that syncing it needs the journal.
const testFile = "test_write"

func journalTest(dir string) canary {
	name := filepath.Join(dir, testFile)
	return func() (err error) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if info, err := f.Stat(); err == nil && info.Size() > 4096 {
			if err := f.Truncate(0); err != nil {
				return err
			}
		}
		if _, err := f.Write(make([]byte, 64)); err != nil {
			return err
		}
		return f.Sync()
	}
}
