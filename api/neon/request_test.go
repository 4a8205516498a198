package neon

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRequestsRefuseWhatIsIncomplete(t *testing.T) {
	const node = `"node_id":1,"listen_pg_addr":"p","listen_pg_port":1,"listen_http_addr":"h","listen_http_port":2`
	for _, tc := range []struct {
		into any
		body string
	}{
		{&NodeRegister{}, `{` + node + `}`},
		{&NodeRegister{}, `{` + node + `,"availability_zone_id":null}`},
		{&NodeRegister{}, `{` + node + `,"availability_zone_id":"a","listen_https_port":70000}`},
		{&NodeRegister{}, `[]`},
		{&NodeConfigure{}, `{"availability":"Active"}`},
		{&NodeConfigure{}, `{"node_id":1,"availability":"active"}`},
		{&NodeConfigure{}, `{"node_id":1,"scheduling":"pause"}`},
		{&NodeConfigure{}, `{"node_id":-1}`},
		{&LocationConfig{}, `{"mode":"AttachedSingle"}`},
		{&LocationConfig{}, `{"tenant_conf":{}}`},
		{&LocationConfig{}, `{"mode":null,"tenant_conf":{}}`},
		{&LocationConfig{}, `{"mode":"Attached","tenant_conf":{}}`},
		{&LocationConfig{}, `{"mode":"Detached","tenant_conf":{},"shard_count":256}`},
		{&LocationConfig{}, `{"mode":"Detached","tenant_conf":{"gc_horizon":"x"}}`},
		{&LocationConfig{}, `{"mode":"Secondary","tenant_conf":{},"secondary_conf":{}}`},
		{&LocationConfigRequest{}, `{"mode":"Detached","tenant_conf":{},"x":1}`},
		{&TenantCreateRequest{}, `{}`},
		{&TenantCreateRequest{}, `{"new_tenant_id":null}`},
		{&TenantCreateRequest{}, `{"new_tenant_id":"` + tenantText + `","x":1}`},
		{
			&TenantCreateRequest{},
			`{"new_tenant_id":"` + tenantText + `","shard_parameters":{"count":2}}`,
		},
		{&TenantCreateRequest{}, `{"new_tenant_id":"` + tenantText +
			`","shard_parameters":{"count":2,"stripe_size":1,"x":1}}`},
		{
			&TenantCreateRequest{},
			`{"new_tenant_id":"` + tenantText + `","new_tenant_id":"` + tenantText + `"}`,
		},
		{
			&TenantCreateRequest{},
			`{"new_tenant_id":"` + tenantText + `","placement_policy":"Attached"}`,
		},
		{&ConfigRequest{}, `{"pitr_interval":"1h"}`},
		{&ConfigRequest{}, `{"tenant_id":"` + tenantText + `","pitr_interval":"1 fortnight"}`},
		{&ConfigPatchRequest{}, `{"tenant_id":"` + tenantText + `","pitr_interval":"5"}`},
		{&ConfigPatchRequest{}, `{"tenant_id":"` + tenantText + `","nope":null}`},
		{&PolicyRequest{}, `{"scheduling":"active"}`},
		{&MigrateRequest{}, `{"origin_node_id":1}`},
		{&MigrateRequest{}, `{"node_id":1,"migration_config":{"secondary_warmup_timeout":"soon"}}`},
		{&ReAttachRequest{}, `{}`},
		{&ReAttachRequest{}, `{"node_id":1,"register":{"node_id":1}}`},
		{&ValidateRequest{}, `{}`},
		{&ValidateRequest{}, `{"tenants":[{"id":"` + tenantText + `"}]}`},
		{&ValidateRequest{}, `{"tenants":[{"gen":1}]}`},
		{&Utilization{}, `{"disk_usage_bytes":1,"free_space_bytes":1}`},
		{
			&Utilization{},
			`{"disk_usage_bytes":1,"free_space_bytes":1,"captured_at":"2025-07-01T12:00:00Z","disk_usable_pct":101}`,
		},
		{&WaitLSNRequest{}, `{"` + timelineText + `":"0/1"}`},
		{&WaitLSNRequest{}, `{"nope":"0/1","timeout":{"secs":1,"nanos":0}}`},
		{&TimelineCreateRequest{}, `{}`},
		{
			&TimelineCreateRequest{},
			`{"new_timeline_id":"` + timelineText + `","ancestor_timeline_id":"short"}`,
		},
		{
			&TimelineCreateRequest{},
			`{"new_timeline_id":"` + timelineText + `","import_pgdata":{"location":{}}}`,
		},
		{&TimelineCreateRequest{}, `{"new_timeline_id":"` + timelineText + `","pg_version":13}`},
		{&TimelineInfo{}, `{"timeline_id":"` + timelineText + `","pg_version":16}`},
		{&LocationListing{}, `{}`},
		{&LocationListing{}, `{"tenant_shards":[["` + tenantText + `"]]}`},
		{&LocationListing{}, `{"tenant_shards":[["` + tenantText + `",null,null]]}`},
		{&LocationListing{}, `{"tenant_shards":[["x",null]]}`},
	} {
		if err := DecodeBody(strings.NewReader(tc.body), 1<<20,
			tc.into); !errors.Is(err, &Error{Code: BadRequest}) {
			t.Errorf("%T took %s: %v", tc.into, tc.body, err)
		}
	}
}

func TestRequestDefaults(t *testing.T) {
	var m MigrateRequest
	if err := json.Unmarshal([]byte(`{"node_id":1}`), &m); err != nil ||
		m.Config != DefaultMigrationConfig() {
		t.Errorf("absent migration_config: %+v, %v", m, err)
	}
	if err := json.Unmarshal([]byte(`{"node_id":1,"migration_config":{"override_scheduler":true}}`),
		&m); err != nil ||
		m.Config != (MigrationConfig{OverrideScheduler: true, Prewarm: true}) {
		t.Errorf("partial migration_config: %+v, %v", m, err)
	}
	var l LocationConfig
	if err := json.Unmarshal([]byte(`{"tenant_conf":{"x":1},"mode":"Detached","later":{}}`),
		&l); err != nil || l != (LocationConfig{Mode: Detached}) {
		t.Errorf("minimal location: %+v, %v", l, err)
	}
	var c TimelineCreateRequest
	if err := json.Unmarshal(
		[]byte(
			`{"new_timeline_id":"`+timelineText+`","ancestor_timeline_id":null,"pg_version":16}`),
		&c); err != nil || c.Bootstrap == nil || c.Branch != nil {
		t.Errorf("a null ancestor is a bootstrap: %+v, %v", c, err)
	}
	var p ConfigPatchRequest
	if err := json.Unmarshal(
		[]byte(`{"gc_horizon":null,"tenant_id":"`+tenantText+`","pitr_interval":"60s"}`),
		&p); err != nil || string(p.Patch) != `{"gc_horizon":null,"pitr_interval":"60s"}` {
		t.Errorf("patch: %s, %v", p.Patch, err)
	}
}

func TestEmptyListsAreNotNull(t *testing.T) {
	for want, v := range map[string]any{
		`{"shards":[]}`:                    TenantCreateResponse{},
		`{"shards":[],"stripe_size":null}`: LocationConfigResponse{},
		`{"tenants":[]}`:                   ReAttachResponse{},
		`{"locations":{}}`:                 ObservedLocations{},
		`{"nodes":{}}`:                     SchedulerDump{},
		`{"tenant_shards":[]}`:             LocationListing(nil),
	} {
		if got, err := json.Marshal(v); err != nil || string(got) != want {
			t.Errorf("%T prints %s, %v, want %s", v, got, err, want)
		}
	}
}

func TestTimelineInfoPrintsWhatItRead(t *testing.T) {
	const text = `{"tenant_id":"x","timeline_id":"` + timelineText +
		`","ancestor_lsn":"0/1","last_record_lsn":"0/169AD58","pg_version":16,"state":{"Broken":{"a":[1]}}}`
	var info TimelineInfo
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		t.Fatal(err)
	}
	if info.LastRecordLsn != 0x169AD58 || *info.AncestorLsn != 1 || info.PgVersion != 16 ||
		info.Ancestor != nil {
		t.Errorf("decoded %+v", info)
	}
	if got, err := json.Marshal(info); err != nil || string(got) != text {
		t.Errorf("printed %s, %v", got, err)
	}
	set := &SafekeeperSet{
		Timeline: info.Timeline, Generation: 1, Safekeepers: List[SafekeeperHost]{{1, "sk"}},
	}
	for want, r := range map[string]TimelineCreateResponse{
		text[:len(text)-1] + `,"safekeepers":null}`: {Info: info},
		text[:len(text)-1] +
			`,"safekeepers":{"tenant_id":"00000000000000000000000000000000","timeline_id":"` +
			timelineText +
			`","generation":1,"safekeepers":[{"id":1,"hostname":"sk"}]}}`: {
			Info: info, Safekeepers: set,
		},
	} {
		got, err := json.Marshal(r)
		if err != nil || string(got) != want {
			t.Errorf("printed\n%s, %v\nwant\n%s", got, err, want)
		}
		var back TimelineCreateResponse
		if err := json.Unmarshal(got, &back); err != nil || back.Info.Timeline != info.Timeline ||
			(back.Safekeepers == nil) != (r.Safekeepers == nil) {
			t.Errorf("read back %+v, %v", back, err)
		}
	}
	if _, err := json.Marshal(TimelineInfo{}); err == nil {
		t.Error("a TimelineInfo of nothing prints")
	}
}

func TestMaySchedule(t *testing.T) {
	for want, v := range map[string]MaySchedule{
		`"No"`: {}, `{"Yes":{"disk_usage_bytes":0,`: {Load: &Utilization{}},
	} {
		if got, err := json.Marshal(v); err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("printed %s, %v", got, err)
		}
	}
}

func TestUtilizationScore(t *testing.T) {
	for _, tc := range []struct {
		u    Utilization
		want uint64
	}{
		{Utilization{}, 0},
		{Utilization{ShardCount: 1250, MaxShardCount: 2500}, FullUtilization / 2},
		{Utilization{
			DiskUsageBytes: 50, FreeSpaceBytes: 50, DiskUsablePct: 80, DiskWantedBytes: 160,
			ShardCount: 1, MaxShardCount: 2500,
		}, 2 * FullUtilization},
		{Utilization{
			DiskUsageBytes: 1 << 63, FreeSpaceBytes: 1 << 63, DiskUsablePct: 100,
			DiskWantedBytes: 1<<64 - 1,
		}, FullUtilization},
		{Utilization{ShardCount: 1}, 1<<64 - 1},
	} {
		if got := tc.u.Score(); got != tc.want {
			t.Errorf("%+v scores %d, want %d", tc.u, got, tc.want)
		}
	}
}

func TestNotifyAttachEqual(t *testing.T) {
	a := NotifyAttach{StripeSize: new(StripeSize(1)), Shards: List[NotifyShard]{{1, 0}}}
	same := NotifyAttach{StripeSize: new(StripeSize(1)), Shards: List[NotifyShard]{{1, 0}}}
	if !a.Equal(same) {
		t.Error("equal notifications differ")
	}
	for _, o := range []NotifyAttach{
		{Shards: a.Shards}, {StripeSize: new(StripeSize(2)), Shards: a.Shards},
		{StripeSize: a.StripeSize},
		{StripeSize: a.StripeSize, Shards: a.Shards, PreferredAZ: MakeAZ("b")},
		{Tenant: TenantID{1}, StripeSize: a.StripeSize, Shards: a.Shards},
	} {
		if a.Equal(o) || o.Equal(a) {
			t.Errorf("%+v equals %+v", a, o)
		}
	}
}

func TestDecodeBody(t *testing.T) {
	var v struct{ A int }
	for body, want := range map[string]string{
		"": "missing request body", "  \n": "missing request body",
		"{":                                  "Failed to parse json request: unexpected EOF",
		`{"A":"x"}`:                          "Failed to parse json request: json: cannot unmarshal string into Go struct field .A of type int",
		`{"A":1}` + strings.Repeat(" ", 100): "request body is larger than 64 bytes",
	} {
		err := DecodeBody(strings.NewReader(body), 64, &v)
		if CodeOf(err) != BadRequest || err.Error() != want {
			t.Errorf("%q: %v %q, want %q", body, CodeOf(err), err, want)
		}
	}
	if err := DecodeBody(strings.NewReader(`{"A":5} trailing`), 64, &v); err != nil || v.A != 5 {
		t.Errorf("trailing bytes: %v, %+v", err, v)
	}
	if err := DecodeBody(iotest.ErrReader(io.ErrUnexpectedEOF), 64,
		&v); CodeOf(err) != Unavailable || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("broken transport: %v", err)
	}
}

func TestBodiesAreUnicodeUpToTheEndOfTheirValue(t *testing.T) {
	for body, ok := range map[string]bool{
		"{\"x\":\"\xff\"}": false, "{\"\xc3\x28\":1}": false, "{\"x\":\"é\"} \xff": true,
	} {
		var into map[string]any
		err := DecodeBody(strings.NewReader(body), 100, &into)
		var e *Error
		if (err == nil) != ok || err != nil && (!errors.As(err, &e) || e.Code != BadRequest) {
			t.Errorf("%q: %v", body, err)
		}
	}
}
