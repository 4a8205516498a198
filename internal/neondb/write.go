package neondb

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Destination says where a state may be written, and what the database is afterwards.
type Destination struct {
	Overwrite bool  // also where a state was taken from, or a copy is
	Copy      *Mark // marks the database as a copy, which no controller can lead on
}

// Write puts a whole state into a database, in one transaction, with the schema of the last
// known migration. It is refused with ErrNotEmpty where another state is.
func (d *Database) Write(ctx context.Context, c *Content, to Destination) error {
	err := d.change(ctx, func(tx pgx.Tx, there map[string][]string) error {
		if err := d.mayWrite(ctx, tx, there, to); err != nil {
			return err
		}
		if err := notForeign(ctx, tx, there, c); err != nil {
			return err
		}
		if err := notOlder(ctx, tx, there, c); err != nil {
			return err
		}
		if err := removeMark(ctx, tx); err != nil {
			return err
		}
		if err := makeSchema(ctx, tx, there); err != nil {
			return err
		}
		if err := writeRows(ctx, tx, c); err != nil {
			return err
		}
		if to.Copy == nil {
			return nil
		}
		now, err := columnsThere(ctx, tx)
		if err != nil {
			return err
		}
		return putMark(ctx, tx, knownIn(now), *to.Copy)
	})
	if err != nil {
		return fmt.Errorf("write the database: %w", err)
	}
	return nil
}

func (d *Database) mayWrite(
	ctx context.Context, tx pgx.Tx, there map[string][]string, to Destination,
) error {
	mark, err := readMark(ctx, tx, there)
	if err != nil {
		return err
	}
	r := reader{tx: tx, there: there, c: &Content{Schema: Schema{Unknown: map[string]int{}}}}
	if r.unknown(ctx); r.err != nil {
		return r.err
	}
	if len(r.c.Schema.Unknown) > 0 {
		return fmt.Errorf("%w: it has what no known schema has: %v", ErrNotEmpty,
			r.c.Schema.Unknown)
	}
	if mark != nil && to.Overwrite {
		return nil
	}
	if mark != nil {
		return fmt.Errorf("%w: a state was taken from it, or it is a copy: --overwrite replaces it",
			ErrNotEmpty)
	}
	for _, name := range knownIn(there) {
		if n := r.count(ctx, "*) FROM "+name); n > 0 {
			return fmt.Errorf("%w: table %s has %d rows", ErrNotEmpty, name, n)
		}
	}
	return r.err
}

// makeSchema makes what is missing, and empties what is there. Tables are kept, with the
// privileges on them.
func makeSchema(ctx context.Context, tx pgx.Tx, there map[string][]string) error {
	var statements []string
	for _, name := range slices.Backward(knownIn(there)) { // what refers to others first
		statements = append(statements, "DELETE FROM "+name)
	}
	statements = append(statements, "CREATE TABLE IF NOT EXISTS "+migrationTable+
		" (version varchar(50) PRIMARY KEY, run_on timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP)")
	for _, t := range tables {
		columns, old := there[t.name]
		if !old {
			statements = append(statements, t.create())
		}
		for _, c := range t.columns {
			switch {
			case old && slices.Contains(columns, c.name):
				if !t.isKey(c.name) {
					statements = append(statements, c.alter(t.name)...)
				}
			case old:
				statements = append(statements,
					"ALTER TABLE "+t.name+" ADD COLUMN "+c.name+" "+c.def)
			}
		}
		for _, c := range t.gone {
			if slices.Contains(columns, c) {
				statements = append(statements, "ALTER TABLE "+t.name+" DROP COLUMN "+c)
			}
		}
		if t.index != "" {
			statements = append(statements, t.index)
		}
	}
	for _, s := range statements {
		if _, err := tx.Exec(ctx, s); err != nil {
			return fmt.Errorf("make the schema: %w", err)
		}
	}
	for _, version := range migrations {
		if _, err := tx.Exec(ctx, "INSERT INTO "+migrationTable+
			" (version) VALUES ($1) ON CONFLICT DO NOTHING", version); err != nil {
			return fmt.Errorf("note the migrations: %w", err)
		}
	}
	return nil
}

func writeRows(ctx context.Context, tx pgx.Tx, c *Content) error {
	if err := copyIn(ctx, tx, "tenant_shards", c.Shards); err != nil {
		return err
	}
	if err := copyIn(ctx, tx, "metadata_health", c.Health); err != nil {
		return err
	}
	if err := copyIn(ctx, tx, "nodes", c.Nodes); err != nil {
		return err
	}
	if err := copyIn(ctx, tx, "safekeepers", c.Safekeepers); err != nil {
		return err
	}
	if err := copyIn(ctx, tx, "safekeeper_timeline_pending_ops", c.Ops); err != nil {
		return err
	}
	for part := range slices.Chunk(c.Timelines, 1000) {
		var b pgx.Batch
		for _, t := range part {
			b.Queue(`INSERT INTO timelines (tenant_id, timeline_id, start_lsn, generation, sk_set,
				new_sk_set, cplane_notified_generation, deleted_at, sk_set_notified_generation)
				VALUES ($1, $2, $3::text::pg_lsn, $4, $5, $6, $7, $8, $9)`, t.Tenant, t.Timeline,
				t.StartLsn, t.Generation, t.Set, t.NewSet, t.ComputeNotified, t.DeletedAt,
				t.QuorumNotified)
		}
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return fmt.Errorf("table timelines: %w", err)
		}
	}
	for part := range slices.Chunk(c.Imports, 1000) {
		var b pgx.Batch
		for _, i := range part {
			b.Queue(`INSERT INTO timeline_imports (tenant_id, timeline_id, shard_statuses)
				VALUES ($1, $2, $3::text::jsonb)`, i.Tenant, i.Timeline, i.Statuses)
		}
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return fmt.Errorf("table timeline_imports: %w", err)
		}
	}
	return nil
}

func copyIn[R interface{ values() []any }](
	ctx context.Context, tx pgx.Tx, name string, rows []R,
) error {
	t, _ := find(name)
	_, err := tx.CopyFrom(ctx, pgx.Identifier{name}, t.names(),
		pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) { return rows[i].values(), nil }))
	if err != nil {
		return fmt.Errorf("table %s: %w", name, err)
	}
	return nil
}

// notForeign refuses to replace tenants none of which is known: a mark says only that a state
// was taken from the database, and not by whom.
func notForeign(
	ctx context.Context, tx pgx.Tx, there map[string][]string, c *Content,
) error {
	if _, ok := there["tenant_shards"]; !ok {
		return nil
	}
	ours := make(map[string]bool)
	for _, r := range c.Shards {
		ours[r.Tenant] = true
	}
	rows, err := tx.Query(ctx, "SELECT DISTINCT tenant_id FROM tenant_shards")
	if err != nil {
		return err
	}
	tenants, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tenants) == 0 ||
		slices.ContainsFunc(tenants, func(id string) bool { return ours[id] }) {
		return err
	}
	return fmt.Errorf("%w: none of its %d tenants, %s among them, is in the state; write into an "+
		"empty database", ErrForeign, len(tenants), tenants[0])
}

// notOlder refuses to take numbers back that the database has.
func notOlder(
	ctx context.Context, tx pgx.Tx, there map[string][]string, c *Content,
) error {
	if _, ok := there["tenant_shards"]; !ok {
		return nil
	}
	type key struct {
		tenant        string
		number, count int32
	}
	next := make(map[key]*int32, len(c.Shards))
	for _, r := range c.Shards {
		next[key{r.Tenant, r.Number, r.Count}] = r.Generation
	}
	rows, err := tx.Query(ctx, `SELECT tenant_id, shard_number, shard_count, generation
		FROM tenant_shards WHERE generation IS NOT NULL`)
	if err != nil {
		return err
	}
	var k key
	var was int32
	_, err = pgx.ForEachRow(rows, []any{&k.tenant, &k.number, &k.count, &was}, func() error {
		if is, ok := next[k]; ok && (is == nil || *is < was) {
			return fmt.Errorf("%w: tenant %s, shard %d of %d, has generation %d there", ErrOlder,
				k.tenant, k.number, k.count, was)
		}
		return nil
	})
	return err
}
