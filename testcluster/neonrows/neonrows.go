// Package neonrows has random databases of an existing storage controller, and one that is
// kept in memory, for tests of moving in and out.
package neonrows

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"quorate/internal/neondb"
)

// Shape says what a random database is like.
type Shape struct {
	Tenants int // at most

	// Odd has it also contain what no controller should leave behind.
	Odd bool
}

// made is a database in the making.
type made struct {
	rng *rand.Rand
	odd bool
	c   neondb.Content
}

// Random makes a database. Equal seeds make equal ones.
func Random(seed uint64, s Shape) *neondb.Content {
	m := &made{rng: rand.New(rand.NewPCG(seed, 1)), odd: s.Odd}
	m.nodes()
	m.safekeepers()
	for range 1 + m.rng.IntN(s.Tenants) {
		m.tenant()
	}
	if m.chance(90) {
		m.c.Leaders = []neondb.Leader{{
			Address:   "http://old:1234/",
			StartedAt: time.Unix(1_700_000_000, int64(m.rng.IntN(1_000_000))*1000).UTC(),
		}}
	}
	m.c.Schema.Unknown = map[string]int{}
	return sorted(&m.c)
}

func (m *made) chance(percent int) bool { return m.rng.IntN(100) < percent }

func (m *made) oddly(percent int) bool { return m.odd && m.chance(percent) }

func pick[T any](m *made, all ...T) T { return all[m.rng.IntN(len(all))] }

func (m *made) id() string {
	var b [16]byte
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	return hex.EncodeToString(b[:])
}

func (m *made) nodes() {
	for id := range 2 + m.rng.IntN(5) {
		n := neondb.NodeRow{
			ID: int64(id + 1), Scheduling: pick(m, "active", "active", "pause", "filling",
				"pause_for_restart", "draining", "deleting"),
			HTTPHost: "127.0.0.1", HTTPPort: int32(9000 + id), PGHost: fmt.Sprintf("ps%d", id),
			PGPort: 6400, AZ: pick(m, "a", "b", ""), Lifecycle: "active",
		}
		if m.chance(30) {
			n.HTTPSPort = new(int32(9443))
		}
		if m.chance(20) {
			n.GRPCHost, n.GRPCPort = new("grpc"), new(int32(51051))
		}
		if m.oddly(20) {
			n.Lifecycle = "deleted"
		}
		m.c.Nodes = append(m.c.Nodes, n)
	}
}

func (m *made) safekeepers() {
	for id := range 3 + m.rng.IntN(3) {
		k := neondb.SafekeeperRow{
			ID: int64(id + 1), Region: "r", Version: int64(m.rng.IntN(9999)),
			Host: fmt.Sprintf("sk%d", id), Port: 5454, HTTPPort: 7676, AZ: pick(m, "a", "b", "c"),
			Scheduling: pick(m, "active", "activating", "pause", "decomissioned"),
		}
		if m.chance(30) {
			k.HTTPSPort = new(int32(7443))
		}
		m.c.Safekeepers = append(m.c.Safekeepers, k)
	}
}

func (m *made) tenant() {
	row := neondb.ShardRow{
		Tenant: m.id(), Count: pick[int32](m, 0, 0, 1, 2, 4, 8),
		Stripe: pick[int32](m, 2048, 32768),
		Placement: pick(m, `{"Attached":0}`, `{"Attached":1}`, `{"Attached":1}`, `"Secondary"`,
			`"Detached"`),
		Scheduling: pick(m, `"Active"`, `"Active"`, `"Essential"`, `"Pause"`, `"Stop"`),
		Config: pick(m, `{}`, `{"gc_horizon":1024}`, `{"pitr_interval":"7days"}`,
			`{"checkpoint_timeout":"10s","gc_period":null}`),
	}
	if m.chance(70) {
		row.PreferredAZ = new(pick(m, "a", "b"))
	}
	attached := row.Placement[0] == '{'
	for n := range max(1, row.Count) {
		row.Number = n
		row.Generation, row.Pageserver = new(int32(1+m.rng.IntN(1000))), nil
		switch {
		case attached && m.chance(90):
			row.Pageserver = new(int64(1 + m.rng.IntN(len(m.c.Nodes))))
		case !attached && m.chance(20):
			row.Generation = nil
		}
		if m.oddly(3) {
			row.Pageserver = new(int64(99))
		}
		m.shard(row)
	}
	if attached && row.Count > 0 && row.Count < 8 && m.oddly(20) {
		m.children(row.Tenant, row.Count)
	}
	for range m.rng.IntN(3) {
		m.timeline(row.Tenant)
	}
	if m.chance(10) {
		m.imported(row)
	}
	if m.oddly(5) {
		m.c.Ops = append(m.c.Ops, neondb.OpRow{
			Safekeeper: 1, Tenant: m.id(), Generation: 1<<31 - 1, Kind: "delete",
		})
	}
}

func (m *made) shard(row neondb.ShardRow) {
	m.c.Shards = append(m.c.Shards, row)
	m.c.Health = append(m.c.Health, neondb.HealthRow{
		Tenant: row.Tenant, Number: row.Number, Count: row.Count, Healthy: m.chance(90),
		ScrubbedAt: time.UnixMilli(1_700_000_000_000 + int64(m.rng.IntN(1_000_000))).UTC(),
	})
}

// children makes a tenant one that is being split.
func (m *made) children(tenant string, count int32) {
	for _, row := range slices.Clone(m.c.Shards) {
		if row.Tenant != tenant {
			continue
		}
		row.Count, row.Splitting = 2*count, 1
		m.shard(row)
		row.Number += count
		m.shard(row)
	}
	for i := range m.c.Shards {
		if m.c.Shards[i].Tenant == tenant {
			m.c.Shards[i].Splitting = 1
		}
	}
}

func (m *made) timeline(tenant string) {
	set := []int64{}
	for _, i := range m.rng.Perm(len(m.c.Safekeepers))[:pick(m, 0, 3, 3)] {
		set = append(set, int64(i+1))
	}
	t := neondb.TimelineRow{
		Tenant: tenant, Timeline: m.id(), StartLsn: fmt.Sprintf("%X/%X", m.rng.IntN(9), m.rng.Uint32()),
		Generation: 1, Set: set,
	}
	switch {
	case len(set) > 0 && m.chance(30): // has migrated, or is on its way
		t.Generation = int32(2 + m.rng.IntN(5))
		t.ComputeNotified = t.Generation - int32(m.rng.IntN(2))
		t.QuorumNotified = t.Generation - int32(m.rng.IntN(2))
		if m.chance(50) {
			t.NewSet = []int64{1, 2, 3}
		}
	case m.chance(50):
		t.ComputeNotified, t.QuorumNotified = 1, 1
	}
	op := neondb.OpRow{Tenant: tenant, Timeline: t.Timeline, Generation: t.Generation}
	if len(set) > 0 {
		op.Safekeeper = set[0]
	}
	switch {
	case len(set) > 0 && m.chance(20):
		t.DeletedAt = new(time.Unix(1_700_000_000, 0).UTC())
		op.Kind, op.Generation = "delete", 1<<31-1
	case len(set) > 0 && m.chance(20):
		op.Kind = "pull"
	case m.oddly(10):
		op.Kind, op.Safekeeper = "exclude", 99
	}
	if op.Kind != "" {
		m.c.Ops = append(m.c.Ops, op)
	}
	if m.oddly(5) {
		t.DeletedAt = new(time.Unix(1_700_000_000, 0).UTC())
	}
	m.c.Timelines = append(m.c.Timelines, t)
}

func (m *made) imported(row neondb.ShardRow) {
	text := ""
	for n := range max(1, row.Count) {
		text += fmt.Sprintf(`,"%02x%02x":%s`, n, row.Count, pick(m, `"Done"`, `{"InProgress":null}`,
			`{"Error":"no such bucket"}`, `{"InProgress":{"V1":{"jobs":7,"completed":3,`+
				`"import_plan_hash":18446744073709551615,"job_soft_size_limit":5}}}`))
	}
	m.c.Imports = append(m.c.Imports, neondb.ImportRow{
		Tenant: row.Tenant, Timeline: m.id(), Statuses: "{" + text[1:] + "}",
	})
}

// sorted orders the rows as the database reads them.
func sorted(c *neondb.Content) *neondb.Content {
	slices.SortFunc(c.Shards, func(a, b neondb.ShardRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Number, b.Number),
			cmp.Compare(a.Count, b.Count))
	})
	slices.SortFunc(c.Health, func(a, b neondb.HealthRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Number, b.Number),
			cmp.Compare(a.Count, b.Count))
	})
	slices.SortFunc(c.Timelines, func(a, b neondb.TimelineRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Timeline, b.Timeline))
	})
	slices.SortFunc(c.Ops, func(a, b neondb.OpRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Timeline, b.Timeline),
			cmp.Compare(a.Safekeeper, b.Safekeeper))
	})
	slices.SortFunc(c.Imports, func(a, b neondb.ImportRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Timeline, b.Timeline))
	})
	return c
}
