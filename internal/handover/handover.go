package handover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/neondb"
	"quorate/internal/neonstate"
)

// Errors that callers tell apart.
var (
	// ErrBlocked: something is wrong that was not accepted.
	ErrBlocked = errors.New("something is wrong, and not accepted")

	// ErrLeaderAlive: the existing controller does not step down, and may work.
	ErrLeaderAlive = errors.New("the existing controller did not step down")

	// ErrUnsure: what was asked may have happened.
	ErrUnsure = errors.New("it may have stepped down")

	// ErrIsCopy: the database is a copy of a state that is in use elsewhere.
	ErrIsCopy = errors.New("the database is a copy of the state of a cluster")
)

// Pageservers lists what pageservers have.
type Pageservers interface {
	Locations(ctx context.Context, node *fsm.Node) ([]neon.ListedLocation, error)
}

// Reader reads everything as it stands at one moment.
type Reader interface {
	Read(ctx context.Context) (*neondb.Content, error)
}

// Source is an existing controller.
type Source struct {
	Database    Reader
	Pageservers Pageservers      // nil: they are not asked
	Accept      []neonstate.Code // what may be wrong
}

// Report is what a plan has found.
type Report struct {
	Schema neondb.Schema  `json:"schema"`
	Leader *neondb.Leader `json:"leader"`
	Mark   *neondb.Mark   `json:"mark,omitempty"`

	Counts   neonstate.Counts   `json:"counts"`
	Findings neonstate.Findings `json:"findings"`
	Blocking []neonstate.Code   `json:"blocking"`
}

// Plan reads the database, and the listings of its pageservers, and says what is taken.
func Plan(ctx context.Context, src Source) (*Report, error) {
	r, _, err := read(ctx, src, nil)
	return r, err
}

// read reads and converts. seen is what is known of locations already.
func read(
	ctx context.Context, src Source, seen neonstate.Seen,
) (*Report, *neonstate.Converted, error) {
	c, err := src.Database.Read(ctx)
	if err != nil {
		return nil, nil, err
	}
	r := &Report{Schema: c.Schema, Mark: c.Mark}
	if len(c.Leaders) > 0 {
		r.Leader = &c.Leaders[0]
	}
	if src.Pageservers != nil {
		seen = list(ctx, src.Pageservers, c)
	}
	origin := "neon"
	if c.Mark != nil {
		origin = c.Mark.ID
	}
	done, err := neonstate.FromRows(c, seen, origin)
	if err != nil {
		return nil, nil, err
	}
	r.Counts, r.Findings = done.Counts, done.Findings
	r.Blocking = r.Findings.Blocking(src.Accept)
	return r, done, nil
}

// listers bounds how many pageservers are asked at once.
const listers = 16

// list asks all pageservers. What those have that do not answer stays unknown.
func list(ctx context.Context, via Pageservers, c *neondb.Content) neonstate.Seen {
	done, err := neonstate.FromRows(&neondb.Content{Nodes: c.Nodes}, nil, "")
	if err != nil {
		return neonstate.Seen{} // which is said when all is converted
	}
	seen := neonstate.Seen{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, listers)
	for n := range done.State.Nodes() {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			listing, err := via.Locations(ctx, n)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			seen[n.ID] = listing
		})
	}
	wg.Wait()
	return seen
}

// seenBy turns what an existing controller has observed into listings.
func seenBy(observed neon.GlobalObserved) neonstate.Seen {
	seen := neonstate.Seen{}
	for shard, locations := range observed {
		for node, l := range locations.Locations {
			seen[node] = append(seen[node], neon.ListedLocation{Shard: shard, Config: l.Config})
		}
	}
	for _, listing := range seen {
		slices.SortFunc(listing, func(a, b neon.ListedLocation) int {
			return a.Shard.Compare(b.Shard)
		})
	}
	return seen
}

func blocked(r *Report) error {
	if len(r.Blocking) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %v; mend it, or accept it by --accept", ErrBlocked, r.Blocking)
}
