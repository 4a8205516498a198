package neondb_test

import (
	"context"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorate/internal/neondb"
	"quorate/testcluster/neonrows"
	"quorate/testcluster/realpostgres"
)

var server *realpostgres.Server

func TestMain(m *testing.M) {
	os.Exit(realpostgres.Main(func() int {
		if os.Getenv(realpostgres.Wanted) != "" {
			var err error
			if server, err = realpostgres.Start(); err != nil {
				println(err.Error())
				return 1
			}
			defer server.Stop()
		}
		return m.Run()
	}))
}

// database makes an empty database, with a connection for statements of the test.
func database(t *testing.T) (*neondb.Database, *pgx.Conn) {
	t.Helper()
	if server == nil {
		t.Skipf("NOT TESTED WITH POSTGRES: %s is not set, `make e2e` sets it", realpostgres.Wanted)
	}
	url, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db, err := neondb.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return db, conn
}

func read(t *testing.T, db *neondb.Database) *neondb.Content {
	t.Helper()
	c, err := db.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Health {
		c.Health[i].ScrubbedAt = c.Health[i].ScrubbedAt.UTC()
	}
	for i := range c.Timelines {
		if at := c.Timelines[i].DeletedAt; at != nil {
			c.Timelines[i].DeletedAt = new(at.UTC())
		}
	}
	return c
}

func write(t *testing.T, db *neondb.Database, c *neondb.Content) {
	t.Helper()
	if err := db.Write(t.Context(), c, neondb.Destination{}); err != nil {
		t.Fatal(err)
	}
}

func exec(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for seed := range uint64(6) {
		db, _ := database(t)
		c := neonrows.Random(seed, neonrows.Shape{Tenants: 20, Odd: seed%2 == 1})
		write(t, db, c)
		got := read(t, db)
		if got.Schema.Migration != "20250717000001" || len(got.Schema.Missing) > 0 ||
			len(got.Schema.Unknown) > 0 {
			t.Fatalf("schema %+v", got.Schema)
		}
		for i := range got.Imports {
			// jsonb has its own spelling
			got.Imports[i].Statuses = strings.ReplaceAll(got.Imports[i].Statuses, " ", "")
		}
		for i := range c.Imports {
			c.Imports[i].Statuses = got.Imports[i].Statuses
		}
		got.Schema, got.Leaders = c.Schema, c.Leaders
		was, is := reflect.ValueOf(*c), reflect.ValueOf(*got)
		for i := range was.NumField() {
			a, b := was.Field(i), is.Field(i)
			if a.Kind() == reflect.Slice && a.Len()+b.Len() == 0 {
				continue
			}
			if !reflect.DeepEqual(a.Interface(), b.Interface()) {
				t.Fatalf("seed %d: %s was %+v, is %+v", seed, was.Type().Field(i).Name, a, b)
			}
		}
	}
}

// TestDatabaseThatIsTakenIsFenced does, after the take, what an existing controller does to
// lead and to issue generations.
func TestDatabaseThatIsTakenIsFenced(t *testing.T) {
	db, conn := database(t)
	ctx := t.Context()
	c := neonrows.Random(1, neonrows.Shape{Tenants: 5})
	write(t, db, c)
	exec(t, conn, "INSERT INTO controllers VALUES ('http://old/', '2026-01-01')")
	prior := read(t, db).Leaders[0]
	own := neondb.Leader{Address: "http://us/", StartedAt: time.Now()}
	other := prior
	other.Address = "http://third/"
	for _, wrong := range []*neondb.Leader{nil, &other} {
		if _, err := db.Take(ctx, "a", wrong, own); !errors.Is(err, neondb.ErrRaced) {
			t.Errorf("taken from %v: %v", wrong, err)
		}
	}
	m, err := db.Take(ctx, "a", &prior, own)
	if err != nil || m.ID != "a" || *m.Prior != prior {
		t.Fatalf("%+v, %v", m, err)
	}
	if m, err := db.Take(ctx, "b", &prior, own); !errors.Is(err, neondb.ErrRaced) {
		t.Errorf("taken twice: %+v, %v", m, err)
	}
	taken := read(t, db)
	if taken.Mark == nil || taken.Leaders[0].Address != own.Address ||
		len(taken.Schema.Unknown) > 0 {
		t.Errorf("%+v, %+v leads, %+v", taken.Mark, taken.Leaders, taken.Schema)
	}
	jumped(t, c, taken, neondb.Jump)
	for _, s := range []string{
		"UPDATE tenant_shards SET generation = generation + 1",
		"UPDATE controllers SET address = 'http://old/', started_at = now()",
		"INSERT INTO controllers VALUES ('http://old/', now())",
		"DELETE FROM nodes", "TRUNCATE safekeepers", "UPDATE timelines SET generation = 9",
	} {
		_, err := conn.Exec(ctx, s)
		if err == nil || !strings.Contains(err.Error(), "moved to Quorate") {
			t.Errorf("%s: %v", s, err)
		}
	}
	if err := db.HandOut(ctx, "b"); !errors.Is(err, neondb.ErrNotTaken) {
		t.Errorf("handed out to a stranger: %v", err)
	}
	if err := db.HandOut(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.GiveBack(ctx, false); !errors.Is(err, neondb.ErrHandedOut) {
		t.Errorf("given back: %v", err)
	}
	if _, err := db.GiveBack(ctx, true); err != nil {
		t.Fatal(err)
	}
	back := read(t, db)
	if back.Mark != nil || back.Leaders[0] != prior {
		t.Errorf("%+v, %+v leads", back.Mark, back.Leaders)
	}
	jumped(t, c, back, neondb.Jump+neondb.BackJump)
	exec(t, conn, "UPDATE tenant_shards SET generation = generation + 1")
	if _, err := db.GiveBack(ctx, true); !errors.Is(err, neondb.ErrNotTaken) {
		t.Errorf("given back twice: %v", err)
	}
}

func jumped(t *testing.T, was, is *neondb.Content, by int32) {
	t.Helper()
	for i, r := range was.Shards {
		if r.Generation != nil && *is.Shards[i].Generation != *r.Generation+by {
			t.Fatalf("%+v went to %d", r, *is.Shards[i].Generation)
		}
	}
}

func TestOnlyWhatIsOursIsOverwritten(t *testing.T) {
	db, conn := database(t)
	ctx := t.Context()
	c := neonrows.Random(2, neonrows.Shape{Tenants: 5})
	write(t, db, c)
	for _, to := range []neondb.Destination{{}, {Overwrite: true}} {
		if err := db.Write(ctx, c, to); !errors.Is(err, neondb.ErrNotEmpty) {
			t.Errorf("%+v: %v", to, err)
		}
	}
	us := neondb.Leader{Address: "us", StartedAt: time.Now()}
	if _, err := db.Take(ctx, "a", nil, us); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(ctx, c, neondb.Destination{}); !errors.Is(err, neondb.ErrNotEmpty) {
		t.Errorf("written: %v", err)
	}
	exec(t, conn, "CREATE TABLE newer (x int)", "INSERT INTO newer VALUES (1)")
	if err := db.Write(ctx, c, neondb.Destination{Overwrite: true}); !errors.Is(err,
		neondb.ErrNotEmpty) {
		t.Errorf("over what is not known: %v", err)
	}
	if got := read(t, db); got.Schema.Unknown["newer"] != 1 {
		t.Errorf("schema %+v", got.Schema)
	}
	exec(t, conn, "DROP TABLE newer")
	foreign := neonrows.Random(3, neonrows.Shape{Tenants: 5})
	if err := db.Write(ctx, foreign, neondb.Destination{Overwrite: true}); !errors.Is(err,
		neondb.ErrForeign) {
		t.Errorf("over the database of another cluster: %v", err)
	}
	if err := db.Write(ctx, c, neondb.Destination{Overwrite: true}); !errors.Is(err,
		neondb.ErrOlder) {
		t.Errorf("numbers go back: %v", err)
	}
	for i := range c.Shards {
		if g := c.Shards[i].Generation; g != nil {
			c.Shards[i].Generation = new(*g + neondb.Jump)
		}
	}
	mark := &neondb.Mark{
		ID: "c", Kind: neondb.Copy, At: time.Now(), Own: neondb.Leader{StartedAt: time.Now()},
	}
	if err := db.Write(ctx, c, neondb.Destination{Overwrite: true, Copy: mark}); err != nil {
		t.Fatal(err)
	}
	if m := read(t, db).Mark; m == nil || m.Kind != neondb.Copy {
		t.Errorf("marked %+v", m)
	}
	if _, err := db.GiveBack(ctx, true); !errors.Is(err, neondb.ErrNotTaken) {
		t.Errorf("a copy is handed back: %v", err)
	}
	if err := db.Write(ctx, c, neondb.Destination{Overwrite: true}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, db); got.Mark != nil || len(got.Leaders) != 0 {
		t.Errorf("%+v, %+v leads", got.Mark, got.Leaders)
	}
}

func TestEmptyDatabaseHasNoState(t *testing.T) {
	db, _ := database(t)
	if _, err := db.Read(t.Context()); !errors.Is(err, neondb.ErrNoState) {
		t.Errorf("an empty database is read: %v", err)
	}
}

// TestAPartOfADatabaseIsNoOlderSchema takes away what the noted migrations have made.
func TestAPartOfADatabaseIsNoOlderSchema(t *testing.T) {
	db, conn := database(t)
	write(t, db, &neondb.Content{})
	if c := read(t, db); len(c.Schema.Lost) > 0 {
		t.Errorf("a whole one lacks %v", c.Schema.Lost)
	}
	exec(t, conn, "DROP TABLE timelines", "ALTER TABLE nodes DROP COLUMN lifecycle")
	want := []string{"nodes.lifecycle", "timelines"}
	if c := read(t, db); !reflect.DeepEqual(c.Schema.Lost, want) {
		t.Errorf("lacks %v", c.Schema.Lost)
	}
	exec(t, conn, "DELETE FROM __diesel_schema_migrations WHERE version > '20250214160526'")
	if c := read(t, db); !reflect.DeepEqual(c.Schema.Lost, want[1:]) {
		t.Errorf("an older one lacks %v", c.Schema.Lost)
	}
	exec(t, conn, "DROP TABLE __diesel_schema_migrations")
	if c := read(t, db); !reflect.DeepEqual(c.Schema.Lost, want) {
		t.Errorf("one without a note lacks %v", c.Schema.Lost)
	}
}

// history is what each migration has made of the schema, in our words.
var history = []struct {
	version    string
	statements []string
}{
	{"20240107212945", []string{
		`CREATE TABLE tenant_shards (tenant_id varchar, shard_number integer, shard_count integer,
			shard_stripe_size integer NOT NULL, generation integer NOT NULL,
			generation_pageserver bigint NOT NULL, placement_policy varchar NOT NULL,
			splitting smallint NOT NULL, config text NOT NULL,
			PRIMARY KEY (tenant_id, shard_number, shard_count))`,
		`CREATE TABLE nodes (node_id bigint PRIMARY KEY, scheduling_policy varchar NOT NULL,
			listen_http_addr varchar NOT NULL, listen_http_port integer NOT NULL,
			listen_pg_addr varchar NOT NULL, listen_pg_port integer NOT NULL)`,
	}},
	{"20240229094122", []string{
		"ALTER TABLE tenant_shards ALTER generation DROP NOT NULL",
		"ALTER TABLE tenant_shards ALTER generation_pageserver DROP NOT NULL",
	}},
	{"20240327133204", []string{
		`ALTER TABLE tenant_shards ADD scheduling_policy varchar NOT NULL DEFAULT '"Active"'`,
	}},
	{"20240726140924", []string{
		`CREATE TABLE metadata_health (tenant_id varchar, shard_number integer,
			shard_count integer, healthy boolean NOT NULL DEFAULT true,
			last_scrubbed_at timestamptz NOT NULL DEFAULT now(),
			PRIMARY KEY (tenant_id, shard_number, shard_count),
			FOREIGN KEY (tenant_id, shard_number, shard_count) REFERENCES tenant_shards
			ON DELETE CASCADE)`,
		`CREATE TABLE controllers (address varchar, started_at timestamptz,
			PRIMARY KEY (address, started_at))`,
	}},
	{"20240823170149", []string{
		`CREATE TABLE safekeepers (id bigint PRIMARY KEY, region_id text NOT NULL,
			version bigint NOT NULL, host text NOT NULL, port integer NOT NULL,
			active boolean NOT NULL DEFAULT false, http_port integer NOT NULL,
			availability_zone_id text NOT NULL)`,
		"CREATE INDEX tenant_shards_tenant_id ON tenant_shards (tenant_id)",
	}},
	{"20240905104500", []string{
		"ALTER TABLE nodes ADD availability_zone_id varchar",
		"ALTER TABLE tenant_shards ADD preferred_az_id varchar",
	}},
	{"20250115181207", []string{
		"ALTER TABLE safekeepers ADD scheduling_policy varchar NOT NULL DEFAULT 'pause'",
		"ALTER TABLE safekeepers DROP active",
	}},
	{"20250228141741", []string{
		"ALTER TABLE nodes ADD listen_https_port integer",
		`CREATE TABLE timelines (tenant_id varchar, timeline_id varchar,
			start_lsn pg_lsn NOT NULL, generation integer NOT NULL, sk_set bigint[] NOT NULL,
			new_sk_set bigint[], cplane_notified_generation integer NOT NULL,
			deleted_at timestamptz, PRIMARY KEY (tenant_id, timeline_id))`,
		`CREATE TABLE safekeeper_timeline_pending_ops (sk_id bigint, tenant_id varchar,
			timeline_id varchar, generation integer NOT NULL, op_kind varchar NOT NULL,
			PRIMARY KEY (tenant_id, timeline_id, sk_id))`,
		"ALTER TABLE safekeepers ADD https_port integer",
	}},
	{"20250617082247", []string{
		`CREATE TABLE timeline_imports (tenant_id varchar, timeline_id varchar,
			shard_statuses jsonb NOT NULL, PRIMARY KEY (tenant_id, timeline_id))`,
		"ALTER TABLE nodes ADD lifecycle varchar NOT NULL DEFAULT 'active'",
		"ALTER TABLE nodes ADD listen_grpc_addr varchar, ADD listen_grpc_port integer",
	}},
}

// TestEverySchemaIsReadAndBroughtUpToDate reads a database after each migration, takes it,
// and writes over it: it has the newest schema then.
func TestEverySchemaIsReadAndBroughtUpToDate(t *testing.T) {
	fresh, conn := database(t)
	write(t, fresh, &neondb.Content{})
	newest := schema(t, conn)
	for upTo := range history {
		db, conn := database(t)
		exec(t, conn, "CREATE TABLE __diesel_schema_migrations (version varchar(50) PRIMARY KEY, "+
			"run_on timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP)")
		for _, h := range history[:upTo+1] {
			exec(t, conn, h.statements...)
			exec(t, conn, "INSERT INTO __diesel_schema_migrations VALUES ('"+h.version+"')")
		}
		exec(t, conn, `INSERT INTO tenant_shards (tenant_id, shard_number, shard_count,
			shard_stripe_size, generation, generation_pageserver, placement_policy, splitting,
			config) VALUES ('a', 0, 0, 2048, 3, 1, '"Single"', 0, '{}')`,
			`INSERT INTO nodes (node_id, scheduling_policy, listen_http_addr, listen_http_port,
			listen_pg_addr, listen_pg_port) VALUES (1, 'active', 'h', 1, 'p', 2)`)
		c := read(t, db)
		if c.Schema.Migration != history[upTo].version || len(c.Schema.Unknown) > 0 {
			t.Errorf("schema %+v", c.Schema)
		}
		if len(c.Schema.Lost) > 0 {
			t.Errorf("after %s it lacks %v", history[upTo].version, c.Schema.Lost)
		}
		if upTo < len(history)-1 && len(c.Schema.Missing) == 0 {
			t.Errorf("nothing is missing after %s", history[upTo].version)
		}
		if sh, n := c.Shards[0], c.Nodes[0]; sh.Scheduling != `"Active"` || *sh.Generation != 3 ||
			n.Lifecycle != "active" || n.AZ != "" {
			t.Errorf("read %+v, %+v", sh, n)
		}
		us := neondb.Leader{StartedAt: time.Now()}
		if _, err := db.Take(t.Context(), "a", nil, us); err != nil {
			t.Fatal(err)
		}
		sh := c.Shards[0]
		sh.Generation = new(*sh.Generation + 2*neondb.Jump)
		if err := db.Write(t.Context(), &neondb.Content{Shards: []neondb.ShardRow{sh}},
			neondb.Destination{Overwrite: true}); err != nil {
			t.Fatalf("after %s: %v", history[upTo].version, err)
		}
		got := schema(t, conn)
		for line := range newest {
			if !got[line] {
				t.Errorf("after %s the schema lacks %s", history[upTo].version, line)
			}
		}
		for line := range got {
			if !newest[line] {
				t.Errorf("after %s the schema has %s", history[upTo].version, line)
			}
		}
	}
}

// schema is every column, key and index, whatever their order is.
func schema(t *testing.T, conn *pgx.Conn) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, q := range []string{
		`SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default)
			FROM information_schema.columns WHERE table_schema = 'public'`,
		`SELECT pg_get_constraintdef(oid) || ' ' || conrelid::regclass FROM pg_constraint
			WHERE connamespace = 'public'::regnamespace`,
		"SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
		"SELECT version FROM __diesel_schema_migrations",
		"SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal",
	} {
		rows, err := conn.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			all[l] = true
		}
	}
	return all
}
