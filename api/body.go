package api

import (
	"context"
	"io"
	"net/http"
	"time"

	"quorate/api/neon"
)

// readBody reads the body of a request, whatever its method: pageservers send bodies
// with GET. The bytes of all requests together are bounded. release gives back those of
// this one.
func (s *Server) readBody(c *call, w http.ResponseWriter) (release func(), err error) {
	r, limit := c.request, c.route.body
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return func() {}, nil
	}
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	weight := r.ContentLength
	if weight < 0 {
		weight = limit
	}
	ctx, cancel := context.WithTimeout(c.ctx, bodyTime)
	defer cancel()
	if err := s.bodies.Acquire(ctx, weight); err != nil {
		return nil, neon.Errorf(neon.Unavailable, "Too many requests are being received")
	}
	release = func() { s.bodies.Release(weight) }

	// A server that cannot set deadlines has timeouts of its own.
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Now().Add(bodyTime)) == nil {
		defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	}
	c.body, err = readUpTo(r.Body, limit, r.ContentLength)
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func readUpTo(r io.Reader, limit, size int64) ([]byte, error) {
	if size > 0 {
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, neon.Errorf(neon.BadRequest, "Failed to read request body: %w", err)
		}
		return b, nil
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, neon.Errorf(neon.BadRequest, "Failed to read request body: %w", err)
	case int64(len(b)) > limit:
		return nil, tooLarge(limit)
	}
	return b, nil
}

func tooLarge(limit int64) error {
	return neon.Errorf(neon.BadRequest, "request body is larger than %d bytes", limit)
}
