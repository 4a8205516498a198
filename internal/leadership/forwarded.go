package leadership

import (
	"context"
	"errors"
)

var errLeaderGone = errors.New("the leader this request went to does not lead any more")

// While derives a context that ends when this replica learns that the leader at
// the address does not lead any more: a frozen one would never answer. The
// returned function must be called; it joins what watches the leader.
func (l *Leadership) While(ctx context.Context, _ string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	leader, _ := l.known()
	if leader == "" {
		cancel(errLeaderGone)
		return ctx, func() {}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.watch(ctx, leader, cancel)
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

// watch calls cancel when another than this leader, or none, is known. It returns then,
// or when ctx ends.
func (l *Leadership) watch(ctx context.Context, leader string, cancel context.CancelCauseFunc) {
	for {
		changed, retired := l.changed()
		if now, _ := l.known(); now != leader {
			cancel(errLeaderGone)
			return
		}
		select {
		case <-changed:
		case <-retired:
		case <-ctx.Done():
			return
		}
	}
}
