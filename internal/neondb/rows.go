package neondb

import "time"

// Content is all that stands in the database, each table by its key.
type Content struct {
	Schema      Schema
	Shards      []ShardRow
	Health      []HealthRow
	Nodes       []NodeRow
	Leaders     []Leader
	Safekeepers []SafekeeperRow
	Timelines   []TimelineRow
	Ops         []OpRow
	Imports     []ImportRow

	// Mark is what one of our commands has noted there; nil: none has.
	Mark *Mark
}

// Schema says which schema a database has.
type Schema struct {
	// Migration is the newest one that has run; empty when none is noted.
	Migration string

	Missing []string       // tables and columns that an older schema lacks
	Lost    []string       // those missing that the migrations which have run have made
	Unknown map[string]int // tables and columns of no known schema, with their values

	// Unused are the rows of tables that the existing controller never reads.
	Unused int
}

// ShardRow is a row of tenant_shards.
type ShardRow struct {
	Tenant        string
	Number, Count int32
	Stripe        int32
	Generation    *int32
	Pageserver    *int64 // that the generation was issued to
	Placement     string // JSON
	Splitting     int16
	Config        string // JSON
	Scheduling    string // JSON
	PreferredAZ   *string
}

// HealthRow is a row of metadata_health.
type HealthRow struct {
	Tenant        string
	Number, Count int32
	Healthy       bool
	ScrubbedAt    time.Time
}

// NodeRow is a row of nodes.
type NodeRow struct {
	ID         int64
	Scheduling string
	HTTPHost   string
	HTTPPort   int32
	PGHost     string
	PGPort     int32
	AZ         string
	HTTPSPort  *int32
	Lifecycle  string
	GRPCHost   *string
	GRPCPort   *int32
}

// Leader is a row of controllers: who leads.
type Leader struct {
	Address   string    `json:"address"`
	StartedAt time.Time `json:"started_at"`
}

// SafekeeperRow is a row of safekeepers.
type SafekeeperRow struct {
	ID             int64
	Region         string
	Version        int64
	Host           string
	Port, HTTPPort int32
	AZ, Scheduling string
	HTTPSPort      *int32
}

// TimelineRow is a row of timelines. Its sets have no NULL of the database.
type TimelineRow struct {
	Tenant, Timeline string
	StartLsn         string
	Generation       int32
	Set              []int64
	NewSet           []int64 // nil: NULL
	ComputeNotified  int32
	DeletedAt        *time.Time
	QuorumNotified   int32
}

// OpRow is a row of safekeeper_timeline_pending_ops.
type OpRow struct {
	Safekeeper       int64
	Tenant, Timeline string // Timeline is empty for the whole tenant
	Generation       int32
	Kind             string
}

// ImportRow is a row of timeline_imports.
type ImportRow struct {
	Tenant, Timeline string
	Statuses         string // JSON
}

func (r ShardRow) values() []any {
	return []any{
		r.Tenant, r.Number, r.Count, r.Stripe, r.Generation, r.Pageserver, r.Placement,
		r.Splitting, r.Config, r.Scheduling, r.PreferredAZ,
	}
}

func (r HealthRow) values() []any {
	return []any{r.Tenant, r.Number, r.Count, r.Healthy, r.ScrubbedAt}
}

func (r NodeRow) values() []any {
	return []any{
		r.ID, r.Scheduling, r.HTTPHost, r.HTTPPort, r.PGHost, r.PGPort, r.AZ, r.HTTPSPort,
		r.Lifecycle, r.GRPCHost, r.GRPCPort,
	}
}

func (r SafekeeperRow) values() []any {
	return []any{
		r.ID, r.Region, r.Version, r.Host, r.Port, r.HTTPPort, r.AZ, r.Scheduling, r.HTTPSPort,
	}
}

func (r OpRow) values() []any {
	return []any{r.Safekeeper, r.Tenant, r.Timeline, r.Generation, r.Kind}
}
