package fanout

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/split"
)

// atOnce bounds the calls of one request that are under way at a time.
const atOnce = 32

// Caller makes requests about one shard. It tries once, bounded by ctx.
type Caller interface {
	// Call returns the body of a 2xx answer. An error that is another answer of the
	// pageserver has HTTPStatus and Message.
	Call(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, call neon.ShardCall,
	) (status int, body []byte, err error)
}

// Mutate runs something on the owners of the shards of a tenant, after the end of a
// split. It believes the outcome only if they still own the shards afterwards, in the
// same generation.
func Mutate(
	ctx context.Context, log decide.Log, id neon.TenantID, run func([]Owner) error,
) error {
	if err := split.AwaitEnd(ctx, log, id); err != nil {
		return err
	}
	return Guard(ctx, log, func(s *fsm.State) ([]Owner, error) { return Owners(s, id) }, run)
}

// Guard is Mutate for the owners that find returns.
func Guard(
	ctx context.Context, log decide.Log, find func(*fsm.State) ([]Owner, error),
	run func([]Owner) error,
) error {
	s, err := log.ReadState(ctx)
	if err != nil {
		return err
	}
	before, err := find(s)
	if err != nil {
		return err
	}
	decide.Acted(ctx)
	outcome := run(before)
	if s, err = log.ReadState(ctx); err != nil {
		return err
	}
	for _, o := range before {
		sh, ok := s.Shard(o.Shard)
		// During a split it is not known whether the children have what the parent has.
		if !ok || s.Splitting(o.Shard.Tenant) || sh.Generation != o.Generation ||
			sh.GenNode != o.Node.ID {
			return neon.Errorf(neon.Unavailable, "Tenant attachment changed, please retry")
		}
	}
	return outcome
}

// Reply is what the pageserver of one shard answered.
type Reply struct {
	Owner
	Status int
	Body   []byte
	Err    error
}

// Ask makes one call on all owners, some at a time, until each answer is final, and waits
// for all of them: an operation that some shards have begun must not be given up because
// of another.
func Ask(ctx context.Context, to Caller, owners []Owner, call neon.ShardCall) []Reply {
	replies := make([]Reply, len(owners))
	permits := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, o := range owners {
		permits <- struct{}{}
		wg.Go(func() {
			defer func() { <-permits }()
			r := Reply{Owner: o}
			r.Err = Settle(ctx, call.UnderWay, func() (err error) {
				r.Status, r.Body, err = to.Call(ctx, &o.Node, o.Shard, call)
				return err
			})
			replies[i] = r
		})
	}
	wg.Wait()
	return replies
}

// Each runs f for every owner, some at a time, until one fails. It tells f the
// position of the owner in the list.
func Each(ctx context.Context, owners []Owner, f func(context.Context, int, Owner) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, o := range owners {
		g.Go(func() error { return f(ctx, i, o) })
	}
	return g.Wait()
}
