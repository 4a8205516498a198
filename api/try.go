package api

import (
	"context"
	"crypto/rand"
	"net/http"

	"quorate/api/internal/forward"
	"quorate/fsm"
	"quorate/internal/decide"
)

// prepare names a request that may change something, and makes all its tries known as such.
// A request that a client sends is a new one, whatever its x-request-id was used for
// before. Only a member can say that it is a further try of another.
func (s *Server) prepare(c *call, r *forward.Request) error {
	try := forward.Try{Number: 1}
	_, _ = rand.Read(try.ID[:]) // never fails
	if forward.Forwarded(c.request) && c.request.Header.Get(forward.TryHeader) != "" {
		secret, err := s.secret(c.ctx)
		if err != nil {
			return err // it is not known whether it was done
		}
		if t, ok := forward.OpenTry(secret, c.request, c.body); ok {
			try = t
		}
	}
	c.ctx = decide.WithRequest(c.ctx, fsm.RequestID(try.ID))
	r.Try = try.Number
	r.Seal = func(ctx context.Context, number int) string {
		secret, err := s.secret(ctx)
		if err != nil {
			return ""
		}
		return forward.Try{ID: try.ID, Number: number}.Seal(secret, c.request, c.body)
	}
	return nil
}

// secret is that of the members. A replica that has only begun may not have it yet.
func (s *Server) secret(ctx context.Context) ([]byte, error) {
	if secret := s.log.State().PeerSecret; len(secret) > 0 {
		return secret, nil
	}
	state, err := s.log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	return state.PeerSecret, nil
}

// try answers a request on this replica, in its n-th try.
func (s *Server) try(c *call, n int) (answer, error) {
	if n > 1 {
		decide.Repeat(c.ctx)
	}
	key := c.request.Header.Get(keyHeader)
	if key == "" || !c.writes() || c.route.duty != onLeader {
		return s.serveHere(c)
	}
	ctx, end, err := s.keys.begin(c.ctx, key, forward.Print(c.request, c.body))
	if err != nil {
		return answer{}, err
	}
	defer end()
	under := *c
	under.ctx = ctx
	a, err := s.serveHere(&under)
	if err == nil && a.status < http.StatusMultipleChoices {
		err = decide.Note(ctx, s.log)
	}
	return a, err
}

// writes reports whether a request may change something.
func (c *call) writes() bool { return c.request.Method != http.MethodGet }
