package neondb

import (
	"slices"
	"strings"
)

// column is one column of the schema after the last known migration.
type column struct {
	name  string
	def   string // type, constraints and default
	since string // the migration that has added it; empty: that of the table

	// absent is the SQL that stands for the column where it is missing; empty: every schema
	// has it. read is the SQL that reads it, if that is not its name.
	absent, read string
}

func (c column) reading() string {
	if c.read != "" {
		return c.read
	}
	return c.name
}

type table struct {
	name    string
	since   string // the migration that has made it
	columns []column
	key     string   // the columns of the primary key
	more    string   // further constraints
	index   string   // statement that makes an index
	gone    []string // columns that an earlier migration made and a later one dropped
}

// tables are all of them, in an order in which rows can be inserted.
var tables = []table{
	{name: "tenant_shards", key: "tenant_id, shard_number, shard_count", columns: []column{
		{name: "tenant_id", def: "varchar NOT NULL"},
		{name: "shard_number", def: "integer NOT NULL"},
		{name: "shard_count", def: "integer NOT NULL"},
		{name: "shard_stripe_size", def: "integer NOT NULL"},
		{name: "generation", def: "integer"},
		{name: "generation_pageserver", def: "bigint"},
		{name: "placement_policy", def: "varchar NOT NULL"},
		{name: "splitting", def: "smallint NOT NULL"},
		{name: "config", def: "text NOT NULL"},
		{
			name: "scheduling_policy", def: `varchar NOT NULL DEFAULT '"Active"'`,
			absent: `'"Active"'`, since: "20240327133204",
		},
		{name: "preferred_az_id", def: "varchar", absent: "NULL", since: "20240905104500"},
	}, index: "CREATE INDEX IF NOT EXISTS tenant_shards_tenant_id ON tenant_shards (tenant_id)"},
	{
		name: "metadata_health", since: "20240723191537", key: "tenant_id, shard_number, shard_count",
		more: ", FOREIGN KEY (tenant_id, shard_number, shard_count) " +
			"REFERENCES tenant_shards ON DELETE CASCADE",
		columns: []column{
			{name: "tenant_id", def: "varchar NOT NULL"},
			{name: "shard_number", def: "integer NOT NULL"},
			{name: "shard_count", def: "integer NOT NULL"},
			{name: "healthy", def: "boolean NOT NULL DEFAULT true"},
			{name: "last_scrubbed_at", def: "timestamptz NOT NULL DEFAULT now()"},
		},
	},
	{name: "nodes", since: "20240107212945", key: "node_id", columns: []column{
		{name: "node_id", def: "bigint NOT NULL"},
		{name: "scheduling_policy", def: "varchar NOT NULL"},
		{name: "listen_http_addr", def: "varchar NOT NULL"},
		{name: "listen_http_port", def: "integer NOT NULL"},
		{name: "listen_pg_addr", def: "varchar NOT NULL"},
		{name: "listen_pg_port", def: "integer NOT NULL"},
		{
			name: "availability_zone_id", def: "varchar NOT NULL", absent: "''",
			read: "coalesce(availability_zone_id, '')", since: "20240827184400",
		},
		{name: "listen_https_port", def: "integer", absent: "NULL", since: "20250211144848"},
		{
			name: "lifecycle", def: "varchar NOT NULL DEFAULT 'active'", absent: "'active'",
			since: "20250601201442",
		},
		{name: "listen_grpc_addr", def: "varchar", absent: "NULL", since: "20250617082247"},
		{name: "listen_grpc_port", def: "integer", absent: "NULL", since: "20250617082247"},
	}},
	{name: "controllers", since: "20240726140924", key: "address, started_at", columns: []column{
		{name: "address", def: "varchar NOT NULL"},
		{name: "started_at", def: "timestamptz NOT NULL"},
	}},
	{name: "safekeepers", key: "id", since: "20240823102952", gone: []string{
		"active",
	}, columns: []column{
		{name: "id", def: "bigint NOT NULL"},
		{name: "region_id", def: "text NOT NULL"},
		{name: "version", def: "bigint NOT NULL"},
		{name: "host", def: "text NOT NULL"},
		{name: "port", def: "integer NOT NULL"},
		{name: "http_port", def: "integer NOT NULL"},
		{name: "availability_zone_id", def: "text NOT NULL"},
		{
			name: "scheduling_policy", def: "varchar NOT NULL DEFAULT 'activating'",
			absent: "'pause'", since: "20241212212515",
		},
		{name: "https_port", def: "integer", absent: "NULL", since: "20250228141741"},
	}},
	{name: "timelines", since: "20250214160526", key: "tenant_id, timeline_id", columns: []column{
		{name: "tenant_id", def: "varchar NOT NULL"},
		{name: "timeline_id", def: "varchar NOT NULL"},
		{name: "start_lsn", def: "pg_lsn NOT NULL", read: "start_lsn::text"},
		{name: "generation", def: "integer NOT NULL"},
		{name: "sk_set", def: "bigint[] NOT NULL"},
		{name: "new_sk_set", def: "bigint[]"},
		{name: "cplane_notified_generation", def: "integer NOT NULL"},
		{name: "deleted_at", def: "timestamptz"},
		{
			name: "sk_set_notified_generation", def: "integer NOT NULL DEFAULT 1", absent: "1",
			since: "20250708114340",
		},
	}},
	{
		name: "safekeeper_timeline_pending_ops", key: "tenant_id, timeline_id, sk_id",
		since: "20250214160526",
		columns: []column{
			{name: "sk_id", def: "bigint NOT NULL"},
			{name: "tenant_id", def: "varchar NOT NULL"},
			{name: "timeline_id", def: "varchar NOT NULL"},
			{name: "generation", def: "integer NOT NULL"},
			{name: "op_kind", def: "varchar NOT NULL"},
		},
	},
	{name: "timeline_imports", key: "tenant_id, timeline_id",
		since: "20250318103700", columns: []column{
			{name: "tenant_id", def: "varchar NOT NULL"},
			{name: "timeline_id", def: "varchar NOT NULL"},
			{name: "shard_statuses", def: "jsonb NOT NULL", read: "shard_statuses::text"},
		}},
	{name: "hadron_safekeepers", key: "sk_node_id", columns: []column{
		{name: "sk_node_id", def: "bigint NOT NULL"},
		{name: "listen_http_addr", def: "varchar NOT NULL"},
		{name: "listen_http_port", def: "integer NOT NULL"},
		{name: "listen_pg_addr", def: "varchar NOT NULL"},
		{name: "listen_pg_port", def: "integer NOT NULL"},
	}},
	{name: "hadron_timeline_safekeepers", key: "timeline_id, sk_node_id", columns: []column{
		{name: "timeline_id", def: "varchar NOT NULL"},
		{name: "sk_node_id", def: "bigint NOT NULL"},
		{name: "legacy_endpoint_id", def: "uuid"},
	}},
}

// migrationTable is where the existing controller notes which migrations have run.
const migrationTable = "__diesel_schema_migrations"

// migrations are the versions of all known ones. The first makes two functions that no
// table uses.
var migrations = []string{
	"00000000000000", "20240107211257", "20240107212945", "20240229094122", "20240318184429",
	"20240327133204", "20240723191537", "20240726140924", "20240823102952", "20240823170149",
	"20240827184400", "20240828150530", "20240905104500", "20241212212515", "20250109160454",
	"20250115181207", "20250211144848", "20250214160526", "20250228141741", "20250318103700",
	"20250601201442", "20250617082247", "20250702170751", "20250708114340", "20250717000001",
}

func find(name string) (table, bool) {
	i := slices.IndexFunc(tables, func(t table) bool { return t.name == name })
	if i < 0 {
		return table{}, false
	}
	return tables[i], true
}

func (t table) knows(name string) bool {
	return slices.Contains(t.gone, name) ||
		slices.ContainsFunc(t.columns, func(c column) bool { return c.name == name })
}

// since is the migration that has made a table, or a column of one (table.column).
func since(what string) string {
	name, column, _ := strings.Cut(what, ".")
	t, _ := find(name)
	for _, c := range t.columns {
		if c.name == column {
			return c.since
		}
	}
	return t.since
}

// lost are those missing that the migrations noted have made. Without a note, all may be.
func lost(missing []string, newest string) (all []string) {
	for _, what := range missing {
		if newest == "" || since(what) <= newest {
			all = append(all, what)
		}
	}
	return all
}

// create is the statement that makes the table.
func (t table) create() string {
	var b strings.Builder
	b.WriteString("CREATE TABLE IF NOT EXISTS " + t.name + " (")
	for _, c := range t.columns {
		b.WriteString(c.name + " " + c.def + ", ")
	}
	b.WriteString("PRIMARY KEY (" + t.key + ")" + t.more + ")")
	return b.String()
}

// names lists the columns.
func (t table) names() (all []string) {
	for _, c := range t.columns {
		all = append(all, c.name)
	}
	return all
}

// alter are the statements that make an existing column what it is in the newest schema.
func (c column) alter(table string) []string {
	def, value, hasDefault := strings.Cut(c.def, " DEFAULT ")
	change := "ALTER TABLE " + table + " ALTER " + c.name
	null, is := " DROP NOT NULL", " DROP DEFAULT"
	if strings.HasSuffix(def, "NOT NULL") {
		null = " SET NOT NULL"
	}
	if hasDefault {
		is = " SET DEFAULT " + value
	}
	return []string{change + null, change + is}
}

func (t table) isKey(name string) bool {
	return slices.Contains(strings.Split(t.key, ", "), name)
}
