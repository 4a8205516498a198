package neon

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	tenantText   = "1f359dd625e519a1a4e8d7509690f6fe"
	timelineText = "de200bd42b49cc1814412c7e592dd6e9"
)

func mustShard(t testing.TB, s string) ShardID {
	t.Helper()
	id, err := ParseShardID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustTimeline(t testing.TB, s string) TimelineID {
	t.Helper()
	id, err := ParseTimelineID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestWireGolden fixes the exact text of every wire struct, nulls and order
// included, and that reading the text gives the value back.
func TestWireGolden(t *testing.T) {
	shard := mustShard(t, tenantText+"-0102")
	tl := mustTimeline(t, timelineText)
	conf := mustConfig(t, `{"pitr_interval":"1day"}`)
	loc := &LocationConfig{
		Mode: AttachedMulti, Generation: new(Generation(7)), ShardNumber: 1, ShardCount: 2,
		StripeSize: 2048, TenantConf: conf,
	}
	sec := &LocationConfig{Mode: Secondary, SecondaryConf: &SecondaryConf{Warm: true}}
	at := time.Date(2025, 7, 1, 12, 0, 0, 120e6, time.UTC)
	for _, tc := range []struct {
		name string
		v    any
	}{
		{"node_register", NodeRegister{
			ID: 1, PgAddr: "pg", PgPort: 6400, HTTPAddr: "h", HTTPPort: 9898, AZ: MakeAZ("a"),
		}},
		{"node_register_all", NodeRegister{
			ID: 1, PgAddr: "pg", PgPort: 6400, GRPCAddr: new("g"), GRPCPort: new(uint16(3)),
			HTTPAddr: "h", HTTPPort: 9898, HTTPSPort: new(uint16(443)), AZ: MakeAZ("a"),
		}},
		{"node_configure", NodeConfigure{
			ID: 1, Availability: new(NodeOffline), Scheduling: new(SchedulingPauseForRestart),
		}},
		{"node_configure_none", NodeConfigure{ID: 1}},
		{"node_describe", NodeDescribe{
			ID: 1, Availability: NodeWarmingUp, Scheduling: SchedulingActive, AZ: "a",
			HTTPAddr: "h", HTTPPort: 9898, PgAddr: "pg", PgPort: 6400,
		}},
		{"node_shards", NodeShards{
			ID: 1, Shards: List[NodeShard]{{Shard: shard, IntendedSecondary: new(true)}},
		}},
		{"location_config", *loc},
		{"location_config_secondary", *sec},
		{"location_config_request", LocationConfigRequest(*loc)},
		{"location_config_response", LocationConfigResponse{
			Shards: List[ShardLocation]{{shard, 3}}, StripeSize: new(StripeSize(2048)),
		}},
		{
			"location_config_response_unsharded",
			LocationConfigResponse{Shards: List[ShardLocation]{}},
		},
		{"location_listing", LocationListing{{shard, loc}, {Unsharded(shard.Tenant), nil}}},
		{"tenant_create_request", TenantCreateRequest{Tenant: Unsharded(shard.Tenant)}},
		{"tenant_create_request_all", TenantCreateRequest{
			Tenant: Unsharded(shard.Tenant), Generation: new(Generation(3)),
			ShardParameters: &ShardParameters{4, 2048}, Placement: new(Attached(1)), Config: conf,
		}},
		{"tenant_create_response", TenantCreateResponse{Shards: List[CreatedShard]{{shard, 3, 0}}}},
		{"config_request", ConfigRequest{Tenant: shard.Tenant, Config: conf}},
		{"config_request_empty", ConfigRequest{Tenant: shard.Tenant}},
		{"config_response", ConfigResponse{conf, conf}},
		{
			"policy_request",
			PolicyRequest{Placement: new(Attached(1)), Scheduling: new(ShardEssential)},
		},
		{"migrate_request", MigrateRequest{
			Node: 2, Origin: new(NodeID(1)),
			Config: MigrationConfig{Prewarm: true, WarmupTimeout: new(Duration(90 * time.Second))},
		}},
		{"tenant_describe", TenantDescribe{Tenant: shard.Tenant, Shards: List[ShardDescribe]{
			{
				Shard: shard, Attached: new(NodeID(1)), Secondary: List[NodeID]{2},
				Scheduling: ShardActive, PreferredAZ: MakeAZ("a"),
			},
			{
				Shard: shard, Secondary: List[NodeID]{}, LastError: "e", Reconciling: true,
				Scheduling: ShardStop,
			},
		}, StripeSize: 2048, Policy: Attached(1), Config: conf}},
		{"locate_response", LocateResponse{Shards: List[LocateShard]{
			{Shard: shard, Node: 1, PgAddr: "pg", PgPort: 6400, HTTPAddr: "h", HTTPPort: 9898},
		}, Parameters: ShardParameters{2, 2048}}},
		{"leader", Leader{"http://127.0.0.1:1234/", at}},
		{"shard_dump", ShardDump{
			Shard: shard, Identity: ShardIdentity{1, 2, 2048, ShardLayoutV1}, Sequence: 9,
			Generation: new(Generation(7)), Policy: Attached(1),
			Intent:   IntentDump{new(NodeID(1)), List[NodeID]{2}, MakeAZ("a")},
			Observed: ObservedLocations{Table[NodeID, ObservedLocation]{1: {loc}, 2: {nil}}},
			Config:   conf, Splitting: SplitIdle, Importing: ImportIdle, Scheduling: ShardActive,
		}},
		{"shard_dump_detached", ShardDump{
			Shard: shard, Intent: IntentDump{Secondary: List[NodeID]{}},
			Observed:  ObservedLocations{Table[NodeID, ObservedLocation]{}},
			Splitting: SplitSplitting, Importing: ImportImporting, Scheduling: ShardPause,
			PreferredNode: new(NodeID(4)),
		}},
		{"global_observed", GlobalObserved{shard: {Table[NodeID, ObservedLocation]{1: {sec}}}}},
		{"re_attach_request", ReAttachRequest{Node: 1, Register: &NodeRegister{
			ID: 1, PgAddr: "pg", PgPort: 6400, HTTPAddr: "h", HTTPPort: 9898, AZ: MakeAZ("a"),
		}, EmptyLocalDisk: new(false)}},
		{"re_attach_request_bare", ReAttachRequest{Node: 1}},
		{"re_attach_response", ReAttachResponse{List[ReAttachTenant]{
			{shard, new(Generation(8)), AttachedSingle, 2048},
			{Unsharded(shard.Tenant), nil, Secondary, 32768},
		}}},
		{"validate_request", ValidateRequest{List[ValidateTenant]{{shard, 8}}}},
		{"validate_response", ValidateResponse{List[ValidatedTenant]{{shard, true}}}},
		{"utilization", Utilization{1, 2, 3, 80, 4, 2500, new(uint64(5)), Millis{at}}},
		{"secondary_progress", SecondaryProgress{&Millis{at}, 1, 2, 3, 4}},
		{"secondary_progress_none", SecondaryProgress{}},
		{"wait_lsn_request", WaitLSNRequest{map[TimelineID]Lsn{tl: 0x169AD58}, 10*time.Second + 5}},
		{"timeline_create_branch", TimelineCreateRequest{Timeline: tl, Branch: &TimelineBranch{
			Ancestor: tl, StartLsn: new(Lsn(0x169AD58)), PgVersion: new(PgVersion(16)),
			ReadOnly: true,
		}}},
		{
			"timeline_create_branch_bare",
			TimelineCreateRequest{Timeline: tl, Branch: &TimelineBranch{Ancestor: tl}},
		},
		{"timeline_create_import", TimelineCreateRequest{Timeline: tl, Import: &TimelineImport{
			json.RawMessage(`{"AwsS3":{"region":"r","bucket":"b","key":"k"}}`), "idem",
		}}},
		{"timeline_create_bootstrap", TimelineCreateRequest{
			Timeline:  tl,
			Bootstrap: &TimelineBootstrap{ExistingInitdb: &tl, PgVersion: new(PgVersion(17))},
		}},
		{
			"timeline_create_bootstrap_bare",
			TimelineCreateRequest{Timeline: tl, Bootstrap: &TimelineBootstrap{}},
		},
		{
			"top_tenants_request",
			TopTenantsRequest{ByMaxLogicalSize, 100, new(ShardCount(2)), new(uint64(1 << 30))},
		},
		{
			"top_tenants_request_per_shard",
			TopTenantsRequest{ByMaxLogicalSizePerShard, 100, nil, nil},
		},
		{"notify_attach", NotifyAttach{
			shard.Tenant, MakeAZ("a"), new(StripeSize(2048)), List[NotifyShard]{{1, 0}, {2, 1}},
		}},
		{
			"notify_attach_unsharded",
			NotifyAttach{shard.Tenant, AZ{}, nil, List[NotifyShard]{{1, 0}}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) { golden(t, tc.name, tc.v) })
	}
}

// golden compares v's JSON with the line of that name in testdata/wire.golden and
// reads it back.
func golden(t *testing.T, name string, v any) {
	got, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile("testdata/wire.golden")
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for line := range strings.Lines(string(all)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			want = strings.TrimSpace(rest)
		}
	}
	if string(got) != want {
		t.Errorf("printed\n%s %s\nwant\n%s %s", name, got, name, want)
	}
	back := reflect.New(reflect.TypeOf(v))
	if err := json.Unmarshal(got, back.Interface()); err != nil {
		t.Fatalf("reading it back: %v", err)
	}
	if !reflect.DeepEqual(back.Elem().Interface(), v) {
		t.Errorf("read back as\n%+v\nwant\n%+v", back.Elem().Interface(), v)
	}
}
