package neon

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// fullRequests are bodies with every field, by what they are decoded into.
var fullRequests = map[any]string{
	new(NodeRegister):      wholeNode,
	new(NodeConfigure):     `{"node_id":1,"availability":"Active","scheduling":"Pause"}`,
	new(PolicyRequest):     `{"placement":{"Attached":1},"scheduling":"Stop"}`,
	new(MigrateRequest):    `{"node_id":1,"origin_node_id":2,"migration_config":{"override_scheduler":true,"prewarm":false,"secondary_warmup_timeout":"1s","secondary_download_request_timeout":"2s"}}`,
	new(ShardSplitRequest): `{"new_shard_count":2,"new_stripe_size":8}`,
	new(ReAttachRequest): `{"node_id":1,"register":` + wholeNode +
		`,"empty_local_disk":true}`,
	new(ValidateRequest): `{"tenants":[{"id":"` + tenantText + `","gen":1}]}`,
	new(ImportStatusRequest): `{"tenant_shard_id":"` + tenantText + `","timeline_id":"` +
		timelineText + `","generation":1}`,
	new(ImportStatusReport): `{"tenant_shard_id":"` + tenantText + `","timeline_id":"` +
		timelineText +
		`","generation":1,"status":{"InProgress":{"V1":{"jobs":2,"completed":1,"import_plan_hash":3,"job_soft_size_limit":4}}}}`,
	new(TenantCreateRequest): `{"new_tenant_id":"` + tenantText +
		`","generation":1,"shard_parameters":{"count":2,"stripe_size":8},"placement_policy":{"Attached":1},` +
		someConfig + `}`,
	new(ConfigRequest):      `{"tenant_id":"` + tenantText + `",` + someConfig + `}`,
	new(ConfigPatchRequest): `{"tenant_id":"` + tenantText + `",` + someConfig + `}`,
	new(LocationConfigRequest): `{"mode":"AttachedSingle","tenant_conf":{` + someConfig +
		`},"generation":1,"secondary_conf":{"warm":true},"shard_number":1,"shard_count":2,"shard_stripe_size":3}`,
	new(TimelineCreateRequest): `{"new_timeline_id":"` + timelineText +
		`","ancestor_timeline_id":"` +
		timelineText + `","ancestor_start_lsn":"0/8","pg_version":16,"read_only":true}`,
	new(TimelineImport):    `{"location":{"AwsS3":{"region":"r","bucket":"b","key":"k"}},"idempotency_key":"i"}`,
	new(TimeTravelRequest): `{"shard_counts":[1,2]}`,
	new(ArchivalRequest):   `{"state":"Archived"}`,
	new(LeaseRequest):      `{"lsn":"0/8"}`,
	new(AttachHookRequest): `{"tenant_shard_id":"` + tenantText +
		`","node_id":1,"generation_override":1,"config":{` + someConfig + `}}`,
	new(InspectRequest):        `{"tenant_shard_id":"` + tenantText + `"}`,
	new(List[FailpointConfig]): `[{"name":"a","actions":"off"}]`,
	new(MetadataHealthUpdate): `{"healthy_tenant_shards":["` + tenantText +
		`"],"unhealthy_tenant_shards":["` + tenantText + `"]}`,
	new(OutdatedRequest):          `{"not_scrubbed_for":"1s"}`,
	new(SafekeeperUpsert):         `{"id":1,"region_id":"r","version":1,"host":"h","port":1,"http_port":2,"https_port":3,"availability_zone_id":"z","active":true}`,
	new(SafekeeperPolicyRequest):  `{"scheduling_policy":"Pause"}`,
	new(SafekeeperMigrateRequest): `{"new_sk_set":[1,2]}`,
	new(TimelineImportRequest): `{"tenant_id":"` + tenantText + `","timeline_id":"` +
		timelineText + `","start_lsn":"0/8","sk_set":[1],"force_upsert":true}`,
}

const (
	wholeNode = `{"node_id":1,"listen_pg_addr":"p","listen_pg_port":1,"listen_grpc_addr":"g","listen_grpc_port":3,"listen_http_addr":"h",` +
		`"listen_http_port":2,"listen_https_port":4,"availability_zone_id":"z","node_ip_addr":"127.0.0.1"}`
	someConfig = `"gc_horizon":1,"eviction_policy":{"kind":"LayerAccessThreshold","period":"1s","threshold":"2s"},"timeline_offloading":true,` +
		`"timeline_get_throttle":{"task_kinds":["a"],"initial":1,"refill_interval":"1s","refill_amount":1,"max":1},"sampling_ratio":{"numerator":1,"denominator":2}`
)

// spoilt is a body with something done to one field, at any depth, and which one
// that is.
type spoilt struct{ what, where, body string }

// spoil does things to each field of each object in raw.
func spoil(
	t *testing.T, raw string, field func(key, value string) map[string]string,
) (all []spoilt) {
	t.Helper()
	switch raw[0] {
	case '[':
		err := eachElement([]byte(raw), func(e []byte) error {
			for _, v := range spoil(t, string(e), field) {
				v.body = strings.Replace(raw, string(e), v.body, 1)
				all = append(all, v)
			}
			return nil
		})
		if err != nil {
			t.Fatal(raw, err)
		}
	case '{':
		err := eachField([]byte(raw), func(key string, value []byte) error {
			whole := fmt.Sprintf("%q:%s", key, value)
			for what, by := range field(key, string(value)) {
				body := strings.Replace(raw, whole, by, 1)
				body = strings.NewReplacer("{,", "{", ",,", ",", ",}", "}").Replace(body)
				all = append(all, spoilt{what, key, body})
			}
			for _, v := range spoil(t, string(value), field) {
				v.where = key + "." + v.where
				v.body = strings.Replace(raw, whole, fmt.Sprintf("%q:%s", key, v.body), 1)
				all = append(all, v)
			}
			return nil
		})
		if err != nil {
			t.Fatal(raw, err)
		}
	}
	return all
}

func decodeAnew(like any, body string) (any, error) {
	into := reflect.New(reflect.TypeOf(like).Elem()).Interface()
	return into, DecodeBody(strings.NewReader(body), 1<<20, into)
}

// TestRequestsAreReadStrictly holds every field of every request to the rules of
// the existing controller's decoder, which are stricter than encoding/json's.
func TestRequestsAreReadStrictly(t *testing.T) {
	for like, body := range fullRequests {
		if _, err := decodeAnew(like, body); err != nil {
			t.Errorf("%T: %s: %v", like, body, err)
			continue
		}
		variants := spoil(t, body, func(key, value string) map[string]string {
			whole := fmt.Sprintf("%q:%s", key, value)
			other := fmt.Sprintf("%q:%s", strings.ToUpper(key), value)
			if other == whole { // of a variant in capitals
				other = fmt.Sprintf("%q:%s", strings.ToLower(key), value)
			}
			return map[string]string{"twice": whole + "," + whole,
				"twice, null": whole + "," + fmt.Sprintf("%q:null", key),
				"other case":  other, "without": "", "wrong type": fmt.Sprintf("%q:[[]]", key),
				"null": fmt.Sprintf("%q:null", key)}
		})
		byWhere := map[string]map[string]string{}
		for _, v := range variants {
			if byWhere[v.where] == nil {
				byWhere[v.where] = map[string]string{}
			}
			byWhere[v.where][v.what] = v.body
		}
		for where, v := range byWhere {
			for _, what := range []string{"twice", "twice, null", "wrong type"} {
				if _, err := decodeAnew(like, v[what]); !errors.Is(err, &Error{Code: BadRequest}) {
					t.Errorf("%T, %s %s: taken, %v: %s", like, where, what, err, v[what])
				}
			}
			// A key in another case is an unknown field: refused, or as if it were not there.
			got, err := decodeAnew(like, v["other case"])
			if want, werr := decodeAnew(like, v["without"]); err == nil &&
				(werr != nil || !reflect.DeepEqual(got, want)) {
				t.Errorf("%T, %s in another case was taken for it: %s", like, where,
					v["other case"])
			}
			// What may be null may be absent, but not the other way round. In a patch, and
			// for a report without progress, null is a value.
			got, err = decodeAnew(like, v["null"])
			want, werr := decodeAnew(like, v["without"])
			if _, patch := got.(*ConfigPatchRequest); err == nil && !patch &&
				where != "status.InProgress" && (werr != nil || !reflect.DeepEqual(got, want)) {
				t.Errorf("%T, null for %s is not as if it were absent: %v, %v: %+v %+v", like,
					where, err, werr, got, want)
			}
		}
	}
}

// TestNullIsForOptionalFields names those that have a default and are not optional.
func TestNullIsForOptionalFields(t *testing.T) {
	for _, tc := range []struct {
		into any
		body string
	}{
		{&TenantCreateRequest{}, `{"new_tenant_id":"` + tenantText + `","shard_parameters":null}`},
		{&MigrateRequest{}, `{"node_id":1,"migration_config":null}`},
		{&MigrateRequest{}, `{"node_id":1,"migration_config":{"prewarm":null}}`},
		{&TimelineCreateRequest{}, `{"new_timeline_id":"` + timelineText +
			`","ancestor_timeline_id":"` + timelineText + `","read_only":null}`},
		{&TimelineCreateRequest{}, `{"new_timeline_id":"` + timelineText +
			`","import_pgdata":{"location":{"Nfs":{}},"idempotency_key":"x"}}`},
		{&TimelineCreateRequest{}, `{"new_timeline_id":"` + timelineText +
			`","import_pgdata":{"location":{"AwsS3":{"region":"r"}},"idempotency_key":"x"}}`},
		{&PolicyRequest{}, `null`},
		{&PolicyRequest{}, `{"placement":{"Attached":null}}`},
		{&PolicyRequest{}, `{"placement":{"Attached":1,"Secondary":1}}`},
		{&PreferredAZsRequest{}, `null`},
		{&List[FailpointConfig]{}, `null`},
		{&List[FailpointConfig]{}, `[null]`},
		{&SafekeeperMigrateRequest{}, `{"new_sk_set":[null]}`},
		{&MetadataHealthUpdate{}, `{"healthy_tenant_shards":[null],"unhealthy_tenant_shards":[]}`},
		{&TimeTravelRequest{}, `{"shard_counts":"AAI="}`},
		{&ValidateRequest{}, `{"tenants":[null]}`},
		{&ValidateRequest{}, `{"tenants":[{"id":null,"gen":1}]}`},
		{&ShardImport{}, `{"Error":null}`},
		{&ShardImport{}, `{"InProgress":{}}`},
		{&ShardImport{}, `{"InProgress":null,"InProgress":null}`},
		{&LeaseRequest{}, `{"lsn":"0/8\ud800"}`},
		{&NodeRegister{}, strings.Replace(wholeNode, `"z"`, `"\ud800"`, 1)},
		{&NodeRegister{}, strings.Replace(wholeNode, `"z"`, `"\udc00\ud800"`, 1)},
		{&NodeRegister{}, strings.Replace(wholeNode, `"z"`, `"\\\ud83d\\ude00"`, 1)},
	} {
		if err := DecodeBody(strings.NewReader(tc.body), 1<<20,
			tc.into); !errors.Is(err, &Error{Code: BadRequest}) {
			t.Errorf("%T took %s: %v", tc.into, tc.body, err)
		}
	}
	var r NodeRegister
	if err := DecodeBody(strings.NewReader(strings.Replace(wholeNode, `"z"`,
		`"\\ud800\ud83d\ude00"`, 1)), 1<<20, &r); err != nil || r.AZ.String() != `\ud800😀` {
		t.Errorf("a pair of surrogates became %q, %v", r.AZ, err)
	}
	var azs PreferredAZsRequest
	if err := json.Unmarshal([]byte(`{"`+tenantText+`":"a","`+tenantText+`":null}`),
		&azs); err != nil || len(azs) != 1 || azs[mustShard(t, tenantText)] != nil {
		t.Errorf("the last of two zones does not count: %v, %v", azs, err)
	}
}

func TestEveryRequestIsHeldToTheRules(t *testing.T) {
	var names []string
	for like, body := range fullRequests {
		names = append(names, reflect.TypeOf(like).Elem().Name())
		v := reflect.ValueOf(like).Elem()
		if v.Kind() != reflect.Struct {
			continue
		}
		for i := range v.NumField() {
			if tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); tag != "" &&
				!strings.Contains(body, `"`+tag+`"`) {
				t.Errorf("the body of %T lacks %s", like, tag)
			}
		}
	}
	slices.Sort(names)
	if n := len(slices.Compact(names)); n != len(fullRequests) {
		t.Errorf("%d bodies for %d requests", len(fullRequests), n)
	}
}

func TestListOfBytesIsPrintedAsNumbers(t *testing.T) {
	text, err := json.Marshal(TimeTravelRequest{Counts: List[ShardCount]{0, 4}})
	if err != nil || string(text) != `{"shard_counts":[0,4]}` {
		t.Errorf("%s, %v", text, err)
	}
}
