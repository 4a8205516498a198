package neondb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Errors that callers tell apart.
var (
	// ErrNoState: it is not the database of a storage controller.
	ErrNoState = errors.New("there is no state of a storage controller")

	// ErrRaced: somebody else has become the leader, or has taken the state, meanwhile.
	ErrRaced = errors.New("another controller has become the leader, or another command " +
		"has taken the state, meanwhile")

	// ErrNotTaken: the database was not taken, or was handed back.
	ErrNotTaken = errors.New("the state was not taken over from this database")

	// ErrHandedOut: a state was written that a cluster can have been founded from.
	ErrHandedOut = errors.New("the state was handed out")

	// ErrNotEmpty: the database has a state that is not to be overwritten.
	ErrNotEmpty = errors.New("the database is not empty")

	// ErrForeign: the database has tenants, and none of them is in what is to be written.
	ErrForeign = errors.New("the database is that of another cluster")
	// ErrOlder: what is to be written is older than what is there.
	ErrOlder = errors.New("the state is older than that of the database")

	// ErrBusy: a lock is held by somebody for too long.
	ErrBusy = errors.New("the database is in use")
)

// Jump is added to all generations when the state is taken. The numbers that the existing
// controller has issued are none of the database's from then on. Handing it back adds
// BackJump: more than a cluster that begins with the state can have issued. So does handing
// it out again.
const (
	Jump     = 1 << 16
	BackJump = 1 << 18
)

// markTable has one row while the state belongs to somebody else.
const markTable = "quorate_moved"

// fence is the name of the trigger, and of its function, that refuses every change.
const fence = "quorate_fence"

// Mark is the row of a database whose state was taken, or is a copy. No existing controller
// can change anything there.
type Mark struct {
	ID    string  `json:"id"`
	Kind  string  `json:"kind"`  // taken or copy
	Prior *Leader `json:"prior"` // who led before; nil: nobody
	Own   Leader  `json:"own"`   // what stands in its place

	At        time.Time  `json:"at"`
	HandedOut *time.Time `json:"handed_out,omitempty"`
}

// The kinds of marks.
const (
	Taken = "taken"
	Copy  = "copy"
)

func readMark(
	ctx context.Context, tx pgx.Tx, there map[string][]string,
) (*Mark, error) {
	if _, ok := there[markTable]; !ok {
		return nil, nil
	}
	var m Mark
	var address *string
	var started *time.Time
	err := tx.QueryRow(ctx, "SELECT id, kind, prior_address, prior_started_at, own_address, "+
		"own_started_at, at, handed_out FROM "+markTable).Scan(&m.ID, &m.Kind, &address, &started,
		&m.Own.Address, &m.Own.StartedAt, &m.At, &m.HandedOut)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if address != nil && started != nil {
		m.Prior = &Leader{*address, *started}
	}
	return &m, err
}

// lockWait bounds how long a change waits for others.
const lockWait = 10 * time.Second

// change runs f in a transaction that waits for those that change the tables, and keeps
// others from them.
func (d *Database) change(
	ctx context.Context, f func(tx pgx.Tx, there map[string][]string) error,
) error {
	return d.changeWithin(ctx, lockWait, f)
}

func (d *Database) changeWithin(
	ctx context.Context, wait time.Duration, f func(tx pgx.Tx, there map[string][]string) error,
) error {
	return d.transaction(ctx, wait, func(tx pgx.Tx) error {
		there, err := columnsThere(ctx, tx)
		if err != nil {
			return err
		}
		_, marked := there[markTable]
		known := knownIn(there)
		if marked { // first, since who hands out has only this one
			if err := lock(ctx, tx, markTable); err != nil {
				return err
			}
		}
		if len(known) > 0 {
			if err := lock(ctx, tx, known...); err != nil {
				return err
			}
		}
		// Who had the locks before may have changed more than rows.
		if there, err = columnsThere(ctx, tx); err != nil {
			return err
		}
		if _, now := there[markTable]; now != marked {
			return ErrRaced
		}
		return f(tx, there)
	})
}

// transaction runs f, whatever the server takes as a default: each statement sees what was
// committed before it, so that what is read under a lock is not older than the lock, and a
// commit is on the disk.
func (d *Database) transaction(
	ctx context.Context, wait time.Duration, f func(tx pgx.Tx) error,
) error {
	err := pgx.BeginTxFunc(ctx, d.conn, pgx.TxOptions{
		IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite,
	}, func(tx pgx.Tx) error {
		for _, s := range []string{
			fmt.Sprintf("SET LOCAL lock_timeout = %d", wait.Milliseconds()),
			"SET LOCAL synchronous_commit = on",
		} {
			if _, err := tx.Exec(ctx, s); err != nil {
				return err
			}
		}
		return f(tx)
	})
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case "55P03": // lock_not_available
			return fmt.Errorf("%w: %w", ErrBusy, err)
		case "42P01": // undefined_table: it was removed while we waited for its lock
			return fmt.Errorf("%w: %w", ErrRaced, err)
		}
	}
	return err
}

func lock(ctx context.Context, tx pgx.Tx, names ...string) error {
	_, err := tx.Exec(ctx, "LOCK TABLE "+strings.Join(names, ", ")+" IN ACCESS EXCLUSIVE MODE")
	return err
}

func knownIn(there map[string][]string) (names []string) {
	for _, t := range tables {
		if _, ok := there[t.name]; ok {
			names = append(names, t.name)
		}
	}
	return names
}

// Take makes own the leader in the place of prior, who was read before (nil: nobody), as a
// new candidate would. In the same transaction it fences the tables, so that nobody can
// change anything, and all generations jump. What is taken already is refused with
// ErrRaced: who goes on with a take-over has read its mark, and does not take again.
func (d *Database) Take(
	ctx context.Context, id string, prior *Leader, own Leader,
) (m Mark, err error) {
	err = d.change(ctx, func(tx pgx.Tx, there map[string][]string) (err error) {
		m, err = take(ctx, tx, there, Mark{ID: id, Kind: Taken, Prior: prior, Own: own})
		return err
	})
	if err != nil {
		return Mark{}, fmt.Errorf("take the leadership: %w", err)
	}
	return m, nil
}

// rehearsalWait is short: who leads works on.
const rehearsalWait = 2 * time.Second

// errRehearsed ends a transaction that would have worked.
var errRehearsed = errors.New("rehearsed")

// Rehearse does what Take does, and takes it back.
func (d *Database) Rehearse(ctx context.Context, prior *Leader, own Leader) error {
	err := d.changeWithin(ctx, rehearsalWait, func(tx pgx.Tx, there map[string][]string) error {
		m := Mark{ID: "rehearsal", Kind: Taken, Prior: prior, Own: own}
		if _, err := take(ctx, tx, there, m); err != nil {
			return err
		}
		return errRehearsed
	})
	if errors.Is(err, errRehearsed) {
		return nil
	}
	return fmt.Errorf("rehearse to take the leadership: %w", err)
}

func take(
	ctx context.Context, tx pgx.Tx, there map[string][]string, m Mark,
) (Mark, error) {
	old, err := readMark(ctx, tx, there)
	if err != nil {
		return m, err
	}
	if old != nil {
		return m, fmt.Errorf("%w: %s stands there", ErrRaced, old.ID)
	}
	m.Own.StartedAt = m.Own.StartedAt.UTC().Truncate(time.Microsecond)
	m.At = m.Own.StartedAt
	if _, ok := there["controllers"]; ok {
		if err := replaceLeader(ctx, tx, m.Prior, &m.Own); err != nil {
			return m, err
		}
	}
	if err := jump(ctx, tx, Jump); err != nil {
		return m, err
	}
	return m, putMark(ctx, tx, knownIn(there), m)
}

// replaceLeader is the compare-and-swap of the row that says who leads.
func replaceLeader(ctx context.Context, tx pgx.Tx, was, is *Leader) error {
	var rows, n int64
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM controllers").Scan(&rows); err != nil {
		return err
	}
	if was != nil {
		done, err := tx.Exec(ctx, "DELETE FROM controllers WHERE address = $1 AND started_at = $2",
			was.Address, was.StartedAt)
		if err != nil {
			return err
		}
		n = done.RowsAffected()
	}
	if (was != nil && n != 1) || rows != n {
		return ErrRaced
	}
	if is == nil {
		return nil
	}
	_, err := tx.Exec(ctx, "INSERT INTO controllers (address, started_at) VALUES ($1, $2)",
		is.Address, is.StartedAt)
	return err
}

// putMark notes whom the state belongs to, and fences the tables.
func putMark(ctx context.Context, tx pgx.Tx, names []string, m Mark) error {
	statements := []string{
		"CREATE TABLE " + markTable + ` (id text PRIMARY KEY, kind text NOT NULL,
			prior_address text, prior_started_at timestamptz, own_address text NOT NULL,
			own_started_at timestamptz NOT NULL, at timestamptz NOT NULL,
			handed_out timestamptz)`,
		"CREATE FUNCTION " + fence + `() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			RAISE EXCEPTION 'this state was moved to Quorate, or is a copy of one that is in use'
			USING HINT = 'stop this controller; docs/guides/moving-in.md tells the way back';
			END $$`,
	}
	for _, name := range names {
		statements = append(statements, "CREATE TRIGGER "+fence+
			" BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON "+name+
			" FOR EACH STATEMENT EXECUTE FUNCTION "+fence+"()")
	}
	for _, s := range statements {
		if _, err := tx.Exec(ctx, s); err != nil {
			return fmt.Errorf("fence the tables: %w", err)
		}
	}
	var address *string
	var started *time.Time
	if m.Prior != nil {
		address, started = &m.Prior.Address, &m.Prior.StartedAt
	}
	_, err := tx.Exec(ctx, "INSERT INTO "+markTable+" (id, kind, prior_address, prior_started_at, "+
		"own_address, own_started_at, at) VALUES ($1, $2, $3, $4, $5, $6, $7)", m.ID, m.Kind,
		address, started, m.Own.Address, m.Own.StartedAt, m.At)
	return err
}

// removeMark is the reverse of putMark.
func removeMark(ctx context.Context, tx pgx.Tx) error {
	for _, s := range []string{
		"DROP FUNCTION IF EXISTS " + fence + "() CASCADE", "DROP TABLE IF EXISTS " + markTable,
	} {
		if _, err := tx.Exec(ctx, s); err != nil {
			return fmt.Errorf("remove the fence: %w", err)
		}
	}
	return nil
}

// HandOut notes that a cluster may be founded from the state from now on. It is true once
// for a mark: whoever comes later gets ErrHandedOut, and has nothing to write.
func (d *Database) HandOut(ctx context.Context, id string) error {
	err := d.transaction(ctx, lockWait, func(tx pgx.Tx) error {
		there, err := columnsThere(ctx, tx)
		if err != nil {
			return err
		}
		if _, marked := there[markTable]; !marked {
			return ErrNotTaken
		}
		if err := lock(ctx, tx, markTable); err != nil {
			return err
		}
		old, err := readMark(ctx, tx, there)
		switch {
		case err != nil:
			return err
		case old == nil || old.ID != id:
			return ErrNotTaken
		case old.HandedOut != nil:
			return fmt.Errorf("%w by another command", ErrHandedOut)
		}
		_, err = tx.Exec(ctx, "UPDATE "+markTable+" SET handed_out = now()")
		return err
	})
	if err != nil {
		return fmt.Errorf("note that the state is handed out: %w", err)
	}
	return nil
}

// Again makes a state that was handed out, under the mark was, one that was not. All
// generations jump beyond what a cluster could have issued that was founded from it, and the
// mark has the name id from then on.
func (d *Database) Again(ctx context.Context, was, id string) (m Mark, err error) {
	err = d.change(ctx, func(tx pgx.Tx, there map[string][]string) error {
		old, err := readMark(ctx, tx, there)
		switch {
		case err != nil:
			return err
		case old == nil || old.Kind != Taken:
			return ErrNotTaken
		case old.ID != was || old.HandedOut == nil:
			return ErrRaced
		}
		m = *old
		m.ID, m.HandedOut = id, nil
		if err := removeMark(ctx, tx); err != nil {
			return err
		}
		if err := jump(ctx, tx, BackJump); err != nil {
			return err
		}
		return putMark(ctx, tx, knownIn(there), m)
	})
	if err != nil {
		return Mark{}, fmt.Errorf("take the state again: %w", err)
	}
	return m, nil
}

// jump adds to all generations.
func jump(ctx context.Context, tx pgx.Tx, by int32) error {
	_, err := tx.Exec(ctx, "UPDATE tenant_shards SET generation = generation + $1", by)
	if err != nil {
		return fmt.Errorf("jump over generations: %w", err)
	}
	return nil
}

// GiveBack makes the one who led before the leader again, and removes the fence. All
// generations jump beyond what a cluster could have issued that was founded meanwhile.
// It is refused with ErrHandedOut when there may be one, unless handedOut says that there
// is none.
func (d *Database) GiveBack(ctx context.Context, handedOut bool) (m Mark, err error) {
	err = d.change(ctx, func(tx pgx.Tx, there map[string][]string) error {
		old, err := readMark(ctx, tx, there)
		switch {
		case err != nil:
			return err
		case old == nil || old.Kind != Taken:
			return ErrNotTaken
		case old.HandedOut != nil && !handedOut:
			return fmt.Errorf("%w at %s", ErrHandedOut, old.HandedOut.UTC().Format(time.RFC3339))
		}
		m = *old
		if err := removeMark(ctx, tx); err != nil {
			return err
		}
		if _, ok := there["controllers"]; ok {
			if err := replaceLeader(ctx, tx, &m.Own, m.Prior); err != nil {
				return err
			}
		}
		return jump(ctx, tx, BackJump)
	})
	if err != nil {
		return Mark{}, fmt.Errorf("hand the leadership back: %w", err)
	}
	return m, nil
}
