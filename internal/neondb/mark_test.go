package neondb_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorate/internal/neondb"
	"quorate/testcluster/neonrows"
)

// TestStateIsHandedOutOnce hands a state out, and again beyond the numbers of the first time.
func TestStateIsHandedOutOnce(t *testing.T) {
	db, conn := database(t)
	ctx := t.Context()
	c := neonrows.Random(3, neonrows.Shape{Tenants: 5})
	write(t, db, c)
	if _, err := db.Again(ctx, "a", "b"); !errors.Is(err, neondb.ErrNotTaken) {
		t.Errorf("again, without a first time: %v", err)
	}
	us := neondb.Leader{Address: "http://us/", StartedAt: time.Now()}
	if err := db.Rehearse(ctx, nil, us); err != nil || read(t, db).Mark != nil {
		t.Errorf("rehearsed: %v", err)
	}
	jumped(t, c, read(t, db), 0)
	if err := db.Rehearse(ctx, &us, us); !errors.Is(err, neondb.ErrRaced) {
		t.Errorf("rehearsed in the place of nobody: %v", err)
	}
	if _, err := db.Take(ctx, "a", nil, us); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Again(ctx, "a", "b"); !errors.Is(err, neondb.ErrRaced) {
		t.Errorf("again, before it was handed out: %v", err)
	}
	if err := db.HandOut(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := db.HandOut(ctx, "a"); !errors.Is(err, neondb.ErrHandedOut) {
		t.Errorf("handed out twice: %v", err)
	}
	if m, err := db.Again(ctx, "a", "b"); err != nil || m.ID != "b" || m.HandedOut != nil {
		t.Fatalf("%+v, %v", m, err)
	}
	jumped(t, c, read(t, db), neondb.Jump+neondb.BackJump)
	if err := db.HandOut(ctx, "a"); !errors.Is(err, neondb.ErrNotTaken) {
		t.Errorf("handed out under its old name: %v", err)
	}
	if _, err := conn.Exec(ctx, "UPDATE tenant_shards SET generation = 1"); err == nil {
		t.Error("the fence is gone")
	}
	if err := db.HandOut(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if m, err := db.GiveBack(ctx, true); err != nil || m.Own.Address != us.Address {
		t.Errorf("%+v, %v", m, err)
	}
}

// waiting returns when somebody waits for a lock in the database of a connection.
func waiting(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for range 3000 {
		var n int
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return
		}
		exec(t, conn, "SELECT pg_sleep(0.01)")
	}
	t.Fatal("nobody waits for a lock")
}

// second opens one more connection to the database of another.
func second(t *testing.T, conn *pgx.Conn) *pgx.Conn {
	t.Helper()
	other, err := pgx.Connect(t.Context(), conn.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close(context.Background()) })
	return other
}

// TestHandingBackWaitsForWhoHandsOut hands a state out while it is handed back.
func TestHandingBackWaitsForWhoHandsOut(t *testing.T) {
	db, conn := database(t)
	ctx := t.Context()
	write(t, db, neonrows.Random(3, neonrows.Shape{Tenants: 5}))
	us := neondb.Leader{Address: "http://us/", StartedAt: time.Now()}
	if _, err := db.Take(ctx, "a", nil, us); err != nil {
		t.Fatal(err)
	}
	watch := second(t, conn)
	exec(t, conn, "BEGIN", "UPDATE quorate_moved SET handed_out = now()") // as HandOut does
	done := make(chan error, 1)
	go func() {
		_, err := db.GiveBack(ctx, false)
		done <- err
	}()
	waiting(t, watch)
	exec(t, conn, "COMMIT")
	if err := <-done; !errors.Is(err, neondb.ErrHandedOut) {
		t.Errorf("handed back: %v", err)
	}

	exec(t, conn, "UPDATE quorate_moved SET handed_out = NULL",
		"BEGIN", "LOCK TABLE quorate_moved IN ACCESS EXCLUSIVE MODE",
		"DROP TABLE quorate_moved") // as GiveBack does
	go func() { done <- db.HandOut(ctx, "a") }()
	waiting(t, watch)
	exec(t, conn, "COMMIT")
	if err := <-done; !errors.Is(err, neondb.ErrRaced) {
		t.Errorf("handed out what was handed back: %v", err)
	}
}

// TestDefaultsOfTheServerDoNotMatter takes a state from a database with other defaults,
// while the existing controller is about to commit a generation.
func TestDefaultsOfTheServerDoNotMatter(t *testing.T) {
	_, conn := database(t)
	var name string
	if err := conn.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	quoted := pgx.Identifier{name}.Sanitize()
	exec(t, conn, "ALTER DATABASE "+quoted+" SET synchronous_commit = off",
		"ALTER DATABASE "+quoted+" SET default_transaction_isolation = 'repeatable read'")
	db, err := neondb.Open(t.Context(), conn.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	c := neonrows.Random(3, neonrows.Shape{Tenants: 5})
	write(t, db, c)
	exec(t, conn, "CREATE TABLE noted (s text)",
		`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO noted VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$`,
		"CREATE TRIGGER note AFTER UPDATE ON tenant_shards FOR EACH STATEMENT "+
			"EXECUTE FUNCTION note()",
		"BEGIN", "UPDATE tenant_shards SET generation = generation + 1", "TRUNCATE noted")
	done := make(chan error, 1)
	go func() {
		_, err := db.Take(t.Context(), "a", nil, neondb.Leader{StartedAt: time.Now()})
		done <- err
	}()
	waiting(t, second(t, conn))
	exec(t, conn, "COMMIT")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	jumped(t, c, read(t, db), neondb.Jump+1)
	var setting string
	if err := conn.QueryRow(t.Context(), "SELECT s FROM noted").Scan(&setting); err != nil ||
		setting != "on" {
		t.Errorf("commits with synchronous_commit = %s, %v", setting, err)
	}
}
