package handover

import (
	"context"
	"fmt"
	"time"

	"quorate/fsm"
	"quorate/internal/neondb"
	"quorate/internal/neonstate"
)

// Writer puts a whole state into a database, or nothing.
type Writer interface {
	Write(ctx context.Context, c *neondb.Content, to neondb.Destination) error
}

// Export says how our state is written into a database.
type Export struct {
	Database  Writer
	State     *fsm.State
	Copy      bool // the cluster goes on: no controller may lead on what is written
	Overwrite bool
	Accept    []neonstate.Code
	Plan      bool // nothing is written
	Now       time.Time
	Source    string // names where the state is from
}

// Written is what an export has written, or would write.
type Written struct {
	Tenants     int                `json:"tenants"`
	Shards      int                `json:"shards"`
	Pageservers int                `json:"pageservers"` // tombstones included
	Safekeepers int                `json:"safekeepers"`
	Timelines   int                `json:"timelines"`
	Operations  int                `json:"safekeeper_operations"`
	Imports     int                `json:"imports"`
	Copy        bool               `json:"copy"`
	Findings    neonstate.Findings `json:"findings"`
	Blocking    []neonstate.Code   `json:"blocking"`
}

// Do writes the state in one transaction.
func (e Export) Do(ctx context.Context) (*Written, error) {
	c, findings, err := neonstate.ToRows(e.State, e.Now)
	if err != nil {
		return nil, err
	}
	w := &Written{
		Tenants: e.State.TenantCount(), Shards: len(c.Shards), Pageservers: len(c.Nodes),
		Safekeepers: len(c.Safekeepers), Timelines: len(c.Timelines), Operations: len(c.Ops),
		Imports: len(c.Imports), Copy: e.Copy, Findings: findings,
		Blocking: findings.Blocking(e.Accept),
	}
	if len(w.Blocking) > 0 {
		return w, fmt.Errorf("%w: %v; let it end, or accept it by --accept", ErrBlocked, w.Blocking)
	}
	if e.Plan {
		return w, nil
	}
	to := neondb.Destination{Overwrite: e.Overwrite}
	if e.Copy {
		at := e.Now.UTC().Truncate(time.Microsecond)
		to.Copy = &neondb.Mark{
			ID: e.Source, Kind: neondb.Copy, At: at, Own: neondb.Leader{StartedAt: at},
		}
	}
	return w, e.Database.Write(ctx, c, to)
}
