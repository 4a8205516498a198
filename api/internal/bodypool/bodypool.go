// Package bodypool reads the bodies of requests, so that no client can keep others
// from sending theirs.
//
// What holds:
//   - A body takes room for what has come of it. One of which nothing comes takes none,
//     however long it says that it is.
//   - The bodies of one client take a part of the room only, and so do all together.
//   - A body that stalls, or that takes too long, is given up.
//
// The package must not know routes, tokens or answers.
package bodypool

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
)

const (
	// firstBytes of each body take no room. They are bounded by the number of
	// connections. Most bodies are not longer.
	firstBytes = 4 << 10

	// growth is how many times larger the next buffer of a body is.
	growth = 4
)

// Limits are the bounds of a Pool.
type Limits struct {
	Bytes     int64 // of all bodies that are held at one time
	PerClient int64 // of those of one client

	Idle  time.Duration // longest time in which nothing comes
	Whole time.Duration // longest time for one body
	Room  time.Duration // longest wait for others to give back what they took
}

// Client is who sends a body. Equal values share PerClient.
type Client string

// Pool is the room for bodies. All methods may be called at any time.
type Pool struct {
	limits Limits

	mu      sync.Mutex
	taken   int64
	clients map[Client]int64 // Invariant: no zeroes; the sum is taken.
	freed   wait.Broadcast
}

// New makes a Pool from which nothing is taken.
func New(l Limits) *Pool { return &Pool{limits: l, clients: make(map[Client]int64)} }

// Taken is how many bytes are held now.
func (p *Pool) Taken() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Body is one body that is to be read.
type Body struct {
	From   io.Reader
	Size   int64 // as the client told; -1: not told
	Limit  int64 // longest size
	Client Client

	// SetReadDeadline ends the reads of From. Its error means that From has timeouts of
	// its own.
	SetReadDeadline func(time.Time) error
}

// Read reads a body. release gives its room back; it is nil if there is an error.
func (p *Pool) Read(ctx context.Context, b Body) (data []byte, release func(), err error) {
	if b.Size > b.Limit {
		return nil, nil, tooLarge(b.Limit)
	}
	r := reading{Body: b, pool: p, end: time.Now().Add(p.limits.Whole)}
	if err := r.all(ctx); err != nil {
		r.release()
		return nil, nil, err
	}
	return r.data, r.release, nil
}

// reading is a body on its way.
type reading struct {
	Body
	pool  *Pool
	end   time.Time
	data  []byte
	taken int64
}

func (r *reading) release() { r.pool.give(r.Client, r.taken) }

func (r *reading) all(ctx context.Context) error {
	most := r.Size
	if most < 0 {
		most = r.Limit + 1 // a byte more, to see that there are too many
	}
	r.data = make([]byte, 0, min(most, firstBytes))
	for int64(len(r.data)) < most {
		if len(r.data) == cap(r.data) {
			if err := r.grow(ctx, min(most, int64(cap(r.data))*growth)); err != nil {
				return err
			}
		}
		n, err := r.next()
		r.data = r.data[:len(r.data)+n]
		switch {
		case int64(len(r.data)) == r.Size:
			return nil
		case errors.Is(err, io.EOF) && r.Size < 0:
			return nil
		case errors.Is(err, io.EOF):
			return neon.Errorf(neon.BadRequest, "Failed to read request body: %w",
				io.ErrUnexpectedEOF)
		case err != nil:
			return err
		}
	}
	if r.Size < 0 {
		return tooLarge(r.Limit)
	}
	return nil
}

// grow moves the body to a larger buffer.
func (r *reading) grow(ctx context.Context, size int64) error {
	more := size - int64(cap(r.data))
	if err := r.pool.take(ctx, r.Client, more); err != nil {
		return err
	}
	r.taken += more
	larger := make([]byte, len(r.data), size)
	copy(larger, r.data)
	r.data = larger
	return nil
}

// next reads what comes next into the buffer.
func (r *reading) next() (int, error) {
	end := time.Now().Add(r.pool.limits.Idle)
	stalls := end.Before(r.end)
	if !stalls {
		end = r.end
	}
	_ = r.SetReadDeadline(end)
	n, err := r.From.Read(r.data[len(r.data):cap(r.data)])
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return n, err
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return n, neon.Errorf(neon.BadRequest, "Failed to read request body: %w", err)
	case stalls:
		return n, neon.Errorf(neon.Timeout, "nothing came of the request body for %s",
			r.pool.limits.Idle)
	}
	return n, neon.Errorf(neon.Timeout, "the request body has not come within %s",
		r.pool.limits.Whole)
}

func tooLarge(limit int64) error {
	return neon.Errorf(neon.BadRequest, "request body is larger than %d bytes", limit)
}

// take takes room for a client. It waits for it, but not long.
func (p *Pool) take(ctx context.Context, c Client, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, p.limits.Room)
	defer cancel()
	for {
		freed := p.freed.Changed()
		err := p.tryTake(c, n)
		if err == nil {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return err
		}
	}
}

func (p *Pool) tryTake(c Client, n int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clients[c]+n > p.limits.PerClient {
		return neon.Errorf(neon.Unavailable,
			"Too many requests are being received: this client has sent bodies of %d bytes that are "+
				"not answered yet", p.clients[c])
	}
	if p.taken+n > p.limits.Bytes {
		return neon.Errorf(neon.Unavailable,
			"Too many requests are being received: bodies of %d bytes are not answered yet",
			p.taken)
	}
	p.clients[c] += n
	p.taken += n
	return nil
}

func (p *Pool) give(c Client, n int64) {
	if n == 0 {
		return
	}
	p.mu.Lock()
	p.taken -= n
	if p.clients[c] -= n; p.clients[c] == 0 {
		delete(p.clients, c)
	}
	p.mu.Unlock()
	p.freed.Notify()
}
