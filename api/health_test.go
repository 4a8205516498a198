package api

import (
	"encoding/json"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

func TestHealthOfRemoteStorageIsKept(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.addNodes(1)
	r := w.replicas[1]
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	play(t, r, []step{
		{"GET", "/control/v1/metadata_health/unhealthy", "", 200, `{"unhealthy_tenant_shards":[]}`},
		{
			"POST", "/control/v1/metadata_health/outdated", `{"not_scrubbed_for":"1h"}`, 200,
			`{"health_records":[]}`,
		},
		{
			"POST", "/control/v1/metadata_health/update",
			`{"healthy_tenant_shards":[],"unhealthy_tenant_shards":["` + tenantB + `","` + tenantA +
				`"]}`,
			200, `{}`,
		},
		{
			"GET", "/control/v1/metadata_health/unhealthy", "", 200,
			`{"unhealthy_tenant_shards":["` + tenantA + `"]}`,
		},
	})
	w.must(fsm.SetMetadataHealth{
		Healthy: []neon.ShardID{neon.Unsharded(tenantID(t, tenantA))}, At: 1700000000123,
	})
	play(t, r, []step{
		{"GET", "/control/v1/metadata_health/unhealthy", "", 200, `{"unhealthy_tenant_shards":[]}`},
		{"POST", "/control/v1/metadata_health/outdated", `{"not_scrubbed_for":"1h"}`, 200,
			`{"health_records":[{"tenant_shard_id":"` + tenantA +
				`","healthy":true,"last_scrubbed_at":"2023-11-14T22:13:20.123Z"}]}`},
	})
	r.do("POST", "/control/v1/metadata_health/update",
		`{"healthy_tenant_shards":["`+tenantA+`"],"unhealthy_tenant_shards":[]}`).want(t, 200, `{}`)
	began := time.Now()
	for time.Since(began) < 2*time.Millisecond {
	}
	var got neon.OutdatedResponse
	if err := json.Unmarshal([]byte(r.do("POST", "/control/v1/metadata_health/outdated",
		`{"not_scrubbed_for":"0s"}`).body), &got); err != nil || len(got.Records) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}
