package neondb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Database is a connection to a database.
type Database struct{ conn *pgx.Conn }

// Open connects. The texts of errors have no password.
func Open(ctx context.Context, url string) (*Database, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return &Database{conn}, nil
}

// Close ends the connection.
func (d *Database) Close(ctx context.Context) { _ = d.conn.Close(ctx) }

// Read reads everything as it stands at one moment, and writes nothing.
func (d *Database) Read(ctx context.Context) (c *Content, err error) {
	err = pgx.BeginTxFunc(ctx, d.conn, pgx.TxOptions{
		IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly,
	}, func(tx pgx.Tx) error {
		c, err = readAll(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the database: %w", err)
	}
	return c, nil
}

func readAll(ctx context.Context, tx pgx.Tx) (*Content, error) {
	there, err := columnsThere(ctx, tx)
	if err != nil {
		return nil, err
	}
	if _, ok := there["tenant_shards"]; !ok {
		return nil, fmt.Errorf("%w: it has no table tenant_shards", ErrNoState)
	}
	r := reader{tx: tx, there: there, c: &Content{Schema: Schema{Unknown: map[string]int{}}}}
	c := r.c
	c.Shards = rowsOf[ShardRow](ctx, &r, "tenant_shards")
	c.Health = rowsOf[HealthRow](ctx, &r, "metadata_health")
	c.Nodes = rowsOf[NodeRow](ctx, &r, "nodes")
	c.Leaders = rowsOf[Leader](ctx, &r, "controllers")
	c.Safekeepers = rowsOf[SafekeeperRow](ctx, &r, "safekeepers")
	c.Ops = rowsOf[OpRow](ctx, &r, "safekeeper_timeline_pending_ops")
	c.Imports = rowsOf[ImportRow](ctx, &r, "timeline_imports")
	for _, t := range rowsOf[nullableTimeline](ctx, &r, "timelines") {
		c.Timelines = append(c.Timelines, t.row())
	}
	r.unused(ctx)
	r.migration(ctx)
	c.Schema.Lost = lost(c.Schema.Missing, c.Schema.Migration)
	r.unknown(ctx)
	if r.err == nil {
		c.Mark, r.err = readMark(ctx, tx, there)
	}
	return c, r.err
}

// columnsThere lists the columns of each table that unqualified names find.
func columnsThere(ctx context.Context, tx pgx.Tx) (map[string][]string, error) {
	rows, err := tx.Query(ctx, `SELECT c.relname::text, a.attname::text
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
		WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace
			AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum`)
	if err != nil {
		return nil, err
	}
	there := map[string][]string{}
	var name, column string
	_, err = pgx.ForEachRow(rows, []any{&name, &column}, func() error {
		there[name] = append(there[name], column)
		return nil
	})
	return there, err
}

// reader reads table after table; after the first error everything it returns is empty.
type reader struct {
	tx    pgx.Tx
	there map[string][]string
	c     *Content
	err   error
}

func rowsOf[R any](ctx context.Context, r *reader, name string) (all []R) {
	t, _ := find(name)
	there, ok := r.there[name]
	if !ok {
		r.c.Schema.Missing = append(r.c.Schema.Missing, name)
	}
	if !ok || r.err != nil {
		return nil
	}
	var exprs []string
	for _, c := range t.columns {
		switch {
		case slices.Contains(there, c.name):
			exprs = append(exprs, c.reading())
		case c.absent != "":
			exprs = append(exprs, c.absent)
			r.c.Schema.Missing = append(r.c.Schema.Missing, name+"."+c.name)
		default:
			r.err = fmt.Errorf("%w: %s has no column %s", ErrNoState, name, c.name)
			return nil
		}
	}
	rows, err := r.tx.Query(ctx, "SELECT "+strings.Join(exprs, ", ")+" FROM "+name+
		" ORDER BY "+t.key)
	if err == nil {
		all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[R])
	}
	if err != nil {
		r.err = fmt.Errorf("table %s: %w", name, err)
		return nil
	}
	return all
}

// nullableTimeline is a TimelineRow as the database can have it.
type nullableTimeline struct {
	Tenant, Timeline string
	StartLsn         string
	Generation       int32
	Set, NewSet      []*int64
	ComputeNotified  int32
	DeletedAt        *time.Time
	QuorumNotified   int32
}

func (t nullableTimeline) row() TimelineRow {
	row := TimelineRow{
		Tenant: t.Tenant, Timeline: t.Timeline, StartLsn: t.StartLsn, Generation: t.Generation,
		Set: withoutNulls(t.Set), NewSet: withoutNulls(t.NewSet),
		ComputeNotified: t.ComputeNotified, DeletedAt: t.DeletedAt,
		QuorumNotified: t.QuorumNotified,
	}
	if row.Set == nil {
		row.Set = []int64{}
	}
	return row
}

func withoutNulls(set []*int64) []int64 {
	if set == nil {
		return nil
	}
	kept := []int64{}
	for _, id := range set {
		if id != nil {
			kept = append(kept, *id)
		}
	}
	return kept
}

// count counts what a query selects.
func (r *reader) count(ctx context.Context, what string) (n int) {
	if r.err == nil {
		r.err = r.tx.QueryRow(ctx, "SELECT count("+what).Scan(&n)
	}
	return n
}

func (r *reader) unused(ctx context.Context) {
	for _, name := range []string{"hadron_safekeepers", "hadron_timeline_safekeepers"} {
		if _, ok := r.there[name]; ok {
			r.c.Schema.Unused += r.count(ctx, "*) FROM "+name)
		}
	}
}

func (r *reader) migration(ctx context.Context) {
	if _, ok := r.there[migrationTable]; ok && r.err == nil {
		r.err = r.tx.QueryRow(ctx, "SELECT coalesce(max(version), '') FROM "+migrationTable).
			Scan(&r.c.Schema.Migration)
	}
}

// unknown finds what no known schema has, with the number of its values.
func (r *reader) unknown(ctx context.Context) {
	for name, columns := range r.there {
		t, known := find(name)
		quoted := pgx.Identifier{name}.Sanitize()
		if !known && name != migrationTable && name != markTable {
			r.c.Schema.Unknown[name] = r.count(ctx, "*) FROM "+quoted)
		}
		for _, c := range columns {
			if known && !t.knows(c) {
				r.c.Schema.Unknown[name+"."+c] =
					r.count(ctx, pgx.Identifier{c}.Sanitize()+") FROM "+quoted)
			}
		}
	}
}
