package resultsdb

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of Postgres
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver of SQLite

	"quorate/internal/results"
)

//go:embed migrations/*.sql
var migrations embed.FS

// DB is a database of results.
type DB struct{ db *sql.DB }

// ErrNone is met when there is no such run.
var ErrNone = errors.New("there is no such run")

// Open opens a database and brings its schema up to date. postgres://… is Postgres; everything
// else is the name of a file of SQLite, which is made when it is not there.
func Open(ctx context.Context, url string) (_ *DB, err error) {
	driver, dialect := "sqlite", goose.DialectSQLite3
	if strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://") {
		driver, dialect = "pgx", goose.DialectPostgres
	} else {
		url = "file:" + strings.TrimPrefix(strings.TrimPrefix(url, "sqlite:"), "file:") +
			"?_pragma=foreign_keys(1)&_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, url)
	if err != nil {
		return nil, fmt.Errorf("open the database of results: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	changes, err := goose.NewProvider(dialect, db, files)
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	if _, err := changes.Up(ctx); err != nil {
		return nil, fmt.Errorf("bring the schema up to date: %w", err)
	}
	return &DB{db}, nil
}

// Close closes it.
func (d *DB) Close() error { return d.db.Close() }

// Ingest takes a run in. It changes nothing, and says so, when the run is there already.
func (d *DB) Ingest(ctx context.Context, r *results.Run) (fresh bool, err error) {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("ingest: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	id := r.ID()
	if fresh, err = insertRun(ctx, tx, id, r); err != nil || !fresh {
		return false, err
	}
	for _, s := range r.Suites {
		for _, d := range s.Data {
			if err := insertResult(ctx, tx, id, s, d); err != nil {
				return false, err
			}
		}
	}
	return true, tx.Commit()
}

func insertRun(
	ctx context.Context, tx *sql.Tx, id string, r *results.Run,
) (fresh bool, err error) {
	document, err := json.Marshal(r.WithoutDrawings())
	if err != nil {
		return false, err
	}
	settings, err := json.Marshal(r.Settings)
	if err != nil {
		return false, err
	}
	done, err := tx.ExecContext(ctx, `INSERT INTO runs (id, revision, modified, against, platform,
		recorded_at, command, settings, cpus, cpu, memory, kernel, go, remote_cluster, document)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
		ON CONFLICT DO NOTHING`,
		id, r.Revision, r.Modified, r.Against, r.Platform, r.Time.Unix(), r.Command,
		string(settings), r.Machine.CPUs, r.Machine.Model, r.Machine.Memory, r.Machine.Kernel,
		r.Machine.Go, r.RemoteCluster, string(document))
	if err != nil {
		return false, fmt.Errorf("ingest a run: %w", err)
	}
	n, err := done.RowsAffected()
	return n == 1, err
}

func insertResult(
	ctx context.Context, tx *sql.Tx, id string, s results.Suite, d results.Result,
) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO results (run_id, suite, name, labels, title, unit,
		report, samples, minimum, median, mean, p99, maximum, goal, missed, total_duration, steal,
		load, fsync_median, fsync_maximum)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
		$19, $20)`,
		id, s.Name, d.Name, d.LabelText(), d.Title, d.Unit, string(d.Better), d.N, d.Min, d.Median,
		d.Mean, d.P99, d.Max, d.GoalText(), d.Missed(), s.Took, s.Noise.Steal, s.Noise.Load,
		s.Noise.FsyncMedian, s.Noise.FsyncMax)
	if err != nil {
		return fmt.Errorf("ingest %s %s: %w", s.Name, d.Key(), err)
	}
	return nil
}

// Which says which runs are meant. Empty fields mean all.
type Which struct {
	Platform string
	Run      string // the beginning of an id or of a commit
	Name     string // of a result that the run has
	Limit    int
}

// Listed is a run without its results.
type Listed struct {
	ID, Revision, Against, Platform, Command string
	Modified, RemoteCluster                  bool
	Time                                     time.Time
	Results, Missed                          int
}

const selected = ` FROM runs WHERE ($1 = '' OR platform = $1)
	AND ($2 = '' OR substr(id, 1, length($2)) = $2 OR substr(revision, 1, length($2)) = $2)
	AND ($3 = '' OR EXISTS (SELECT 1 FROM results WHERE run_id = runs.id AND name = $3))
	ORDER BY recorded_at DESC, id LIMIT $4`

func (w Which) args() []any {
	limit := w.Limit
	if limit <= 0 {
		limit = 1 << 30
	}
	return []any{w.Platform, w.Run, w.Name, limit}
}

// List lists runs, the newest first.
func (d *DB) List(ctx context.Context, w Which) (list []Listed, err error) {
	rows, err := d.db.QueryContext(ctx, `SELECT id, revision, against, platform, command, modified,
		remote_cluster, recorded_at, (SELECT count(*) FROM results WHERE run_id = runs.id),
		(SELECT count(*) FROM results WHERE run_id = runs.id AND missed)`+selected, w.args()...)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var l Listed
		var seconds int64
		if err := rows.Scan(&l.ID, &l.Revision, &l.Against, &l.Platform, &l.Command, &l.Modified,
			&l.RemoteCluster, &seconds, &l.Results, &l.Missed); err != nil {
			return nil, fmt.Errorf("list runs: %w", err)
		}
		l.Time = time.Unix(seconds, 0).UTC()
		list = append(list, l)
	}
	return list, rows.Err()
}

// Newest is the newest run of those that are meant.
func (d *DB) Newest(ctx context.Context, w Which) (*results.Run, error) {
	w.Limit = 1
	var document string
	err := d.db.QueryRowContext(ctx, "SELECT document"+selected, w.args()...).Scan(&document)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: %q, platform %q", ErrNone, w.Run, w.Platform)
	}
	if err != nil {
		return nil, fmt.Errorf("find a run: %w", err)
	}
	return results.Read(strings.NewReader(document), time.Time{})
}

// Regressions are the ratios of a run that got worse than they were in the newest earlier run of
// another commit on the same platform, beside the same other binary. Where there is none, two
// equal binaries are what a ratio is compared with.
func (d *DB) Regressions(
	ctx context.Context, r *results.Run,
) (found []results.Regression, err error) {
	for _, s := range r.Suites {
		for _, now := range s.Data {
			if now.Unit != results.Times {
				continue
			}
			before := 1.0
			err := d.db.QueryRowContext(ctx, `SELECT median FROM results JOIN runs ON id = run_id
				WHERE suite = $1 AND name = $2 AND labels = $3 AND platform = $4 AND revision <> $5
				AND recorded_at < $6 ORDER BY recorded_at DESC LIMIT 1`, s.Name, now.Name,
				now.LabelText(), r.Platform, r.Revision, r.Time.Unix()).Scan(&before)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return nil, fmt.Errorf("find the ratio before: %w", err)
			}
			if now.Regressed(before) {
				found = append(found, results.Regression{
					Suite: s.Name, Result: now, Before: before,
				})
			}
		}
	}
	return found, nil
}
