package handover

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"quorate/internal/neondb"
	"quorate/internal/neonstate"
	"quorate/internal/wait"
)

// Change is one row that came, went or is another one.
type Change struct {
	Table string `json:"table"`
	Key   string `json:"key"`
	Was   string `json:"was,omitempty"`
	Is    string `json:"is,omitempty"`
}

func (c Change) String() string {
	switch {
	case c.Was == "":
		return fmt.Sprintf("+ %s %s: %s", c.Table, c.Key, c.Is)
	case c.Is == "":
		return fmt.Sprintf("- %s %s: %s", c.Table, c.Key, c.Was)
	}
	return fmt.Sprintf("~ %s %s: %s -> %s", c.Table, c.Key, c.Was, c.Is)
}

// Seen is what one look at a database has found that the one before had not.
type Seen struct {
	At       time.Time          `json:"at"`
	Changes  []Change           `json:"changes"`
	Findings neonstate.Findings `json:"findings"` // new ones
	Gone     neonstate.Findings `json:"gone"`     // found before, and not any more
}

// Follow looks at a database again and again, until ctx ends or tell does not want more.
func Follow(
	ctx context.Context, src Source, every time.Duration, tell func(Seen) error,
) error {
	var rows map[[2]string]string
	var found neonstate.Findings
	for {
		c, err := src.Database.Read(ctx)
		if err != nil {
			return err
		}
		r, _, err := read(ctx, src, nil)
		if err != nil {
			return err
		}
		now := flat(c)
		s := Seen{
			At: time.Now().UTC(), Findings: without(r.Findings, found),
			Gone: without(found, r.Findings),
		}
		if rows != nil {
			s.Changes = changes(rows, now)
		}
		rows, found = now, r.Findings
		if err := tell(s); err != nil {
			return err
		}
		if err := wait.Sleep(ctx, every); err != nil {
			return nil // told to stop
		}
	}
}

func without(all, some neonstate.Findings) (rest neonstate.Findings) {
	for _, f := range all {
		if !slices.Contains(some, f) {
			rest = append(rest, f)
		}
	}
	return rest
}

// changes compares two contents by table and key.
func changes(was, is map[[2]string]string) (all []Change) {
	keys := maps.Clone(was)
	maps.Copy(keys, is)
	for _, k := range slices.SortedFunc(maps.Keys(keys), func(a, b [2]string) int {
		return slices.Compare(a[:], b[:])
	}) {
		if was[k] != is[k] {
			all = append(all, Change{Table: k[0], Key: k[1], Was: was[k], Is: is[k]})
		}
	}
	return all
}

// flat is every row as a text, by table and key.
func flat(c *neondb.Content) map[[2]string]string {
	rows := map[[2]string]string{}
	put := func(table, key string, row any) {
		text, err := json.Marshal(row)
		if err != nil {
			text = []byte(err.Error())
		}
		rows[[2]string{table, key}] = string(text)
	}
	for _, r := range c.Shards {
		put("tenant_shards", fmt.Sprintf("%s-%02x%02x", r.Tenant, r.Number, r.Count), r)
	}
	for _, r := range c.Nodes {
		put("nodes", fmt.Sprint(r.ID), r)
	}
	for _, r := range c.Leaders {
		put("controllers", r.Address, r)
	}
	for _, r := range c.Safekeepers {
		put("safekeepers", fmt.Sprint(r.ID), r)
	}
	for _, r := range c.Timelines {
		put("timelines", r.Tenant+"/"+r.Timeline, r)
	}
	for _, r := range c.Ops {
		put("safekeeper_timeline_pending_ops",
			fmt.Sprintf("%s/%s/%d", r.Tenant, r.Timeline, r.Safekeeper), r)
	}
	for _, r := range c.Imports {
		put("timeline_imports", r.Tenant+"/"+r.Timeline, r)
	}
	return rows
}
