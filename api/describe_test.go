package api

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
)

// TestTenantsArePrintedAsJSONWould: whatever a tenant is like, its text is what
// encoding/json prints of it.
func TestTenantsArePrintedAsJSONWould(t *testing.T) {
	configs := []neon.TenantConfig{{}}
	for _, text := range []string{
		`{"gc_horizon":7,"gc_period":"1 m"}`, `{"image_layer_creation_check_threshold":5}`,
		`{"eviction_policy":{"kind":"NoEviction"}}`,
	} {
		c, err := neon.ParseTenantConfig([]byte(text), neon.RejectUnknown)
		if err != nil {
			t.Fatal(err)
		}
		configs = append(configs, c)
	}
	texts := rapid.SampledFrom([]string{"", "a", `a "quoted" \ <b> & é`, "\u2028", "\x00\n", "\xff"})
	shard := rapid.Custom(func(t *rapid.T) neon.ShardDescribe {
		d := neon.ShardDescribe{
			Shard: neon.ShardID{
				Tenant: neon.TenantID{rapid.Byte().Draw(t, "tenant")},
				Number: neon.ShardNumber(rapid.Byte().Draw(t, "number")),
				Count:  neon.ShardCount(rapid.Byte().Draw(t, "count")),
			},
			LastError: texts.Draw(t, "error"), Reconciling: rapid.Bool().Draw(t, "reconciling"),
			PendingComputeNotification: rapid.Bool().Draw(t, "pending"),
			Splitting:                  rapid.Bool().Draw(t, "splitting"),
			Importing:                  rapid.Bool().Draw(t, "importing"),
			Scheduling: rapid.SampledFrom([]neon.ShardScheduling{
				neon.ShardActive, neon.ShardStop, "",
			}).Draw(t, "scheduling"),
			PreferredAZ: neon.MakeAZ(texts.Draw(t, "zone")),
		}
		if rapid.Bool().Draw(t, "attached") {
			n := neon.NodeID(rapid.Uint64().Draw(t, "node"))
			d.Attached = &n
		}
		for _, n := range rapid.SliceOfN(rapid.Uint64(), 0, 3).Draw(t, "secondaries") {
			d.Secondary = append(d.Secondary, neon.NodeID(n))
		}
		return d
	})
	tenant := rapid.Custom(func(t *rapid.T) neon.TenantDescribe {
		return neon.TenantDescribe{
			Tenant: neon.TenantID{rapid.Byte().Draw(t, "id")},
			Shards: rapid.SliceOfN(shard, 0, 3).Draw(t, "shards"),
			Policy: neon.Placement{
				Kind: rapid.SampledFrom([]neon.PlacementKind{
					neon.PlaceAttached, neon.PlaceSecondary, neon.PlaceDetached,
				}).Draw(t, "kind"),
				Secondaries: rapid.Uint32().Draw(t, "secondaries"),
			},
			StripeSize: neon.StripeSize(rapid.Uint32().Draw(t, "stripe")),
			Config:     rapid.SampledFrom(configs).Draw(t, "config"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(tenant, 0, 3).Draw(t, "tenants")
		if all == nil {
			all = []neon.TenantDescribe{}
		}
		want, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		a := answer{}
		next := tenantList(partsOf(all, rapid.IntRange(1, 3).Draw(t, "a part")))
		for on := true; on; {
			a.body, on = next(a.body)
		}
		if got := string(a.body); got != string(want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
		for i := range all {
			if want, _ := json.Marshal(all[i]); string(appendTenant(nil, &all[i])) != string(want) {
				t.Fatalf("got  %s\nwant %s", appendTenant(nil, &all[i]), want)
			}
		}
	})
}

// partsOf is a list that gives at most so many tenants at a time. It may say that there are
// more where none follow.
func partsOf(
	all []neon.TenantDescribe, most int,
) func(func(*neon.TenantDescribe) bool) bool {
	return func(each func(*neon.TenantDescribe) bool) bool {
		for i := range min(most, len(all)) {
			d := &all[0]
			all = all[1:]
			if on := each(d); !on || i+1 == most {
				return true
			}
		}
		return false
	}
}

func BenchmarkListOf2500Tenants(b *testing.B) {
	all := make([]neon.TenantDescribe, 2500)
	for i := range all {
		all[i].Tenant = neon.TenantID{byte(i), byte(i >> 8)}
		for n, id := range neon.ShardIDs(all[i].Tenant, 4) {
			node := neon.NodeID(n + 1)
			all[i].Shards = append(all[i].Shards, neon.ShardDescribe{
				Shard: id, Attached: &node, Secondary: neon.List[neon.NodeID]{7},
				Scheduling: neon.ShardActive, PreferredAZ: neon.MakeAZ("a"),
			})
		}
	}
	b.Run("printed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b := []byte(nil)
			next := tenantList(partsOf(all, len(all)))
			for on := true; on; {
				b, on = next(b[:0])
			}
		}
	})
	b.Run("encoded", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			encoded(all)
		}
	})
}
