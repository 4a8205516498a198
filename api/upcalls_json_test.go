package api

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
)

// TestUpcallsArePrintedAsJSONWould: whatever the answer to a pageserver is, its text is what
// encoding/json prints of it.
func TestUpcallsArePrintedAsJSONWould(t *testing.T) {
	shard := rapid.Custom(func(t *rapid.T) neon.ShardID {
		return neon.ShardID{
			Tenant: neon.TenantID{rapid.Byte().Draw(t, "tenant")},
			Number: neon.ShardNumber(rapid.Byte().Draw(t, "number")),
			Count:  neon.ShardCount(rapid.Byte().Draw(t, "count")),
		}
	})
	location := rapid.Custom(func(t *rapid.T) neon.ReAttachTenant {
		l := neon.ReAttachTenant{
			Shard: shard.Draw(t, "shard"),
			Mode: neon.LocationMode(rapid.SampledFrom([]string{
				string(neon.AttachedSingle), string(neon.Secondary), "", "<é>",
			}).Draw(t, "mode")),
			StripeSize: neon.StripeSize(rapid.Uint32().Draw(t, "stripe")),
		}
		if rapid.Bool().Draw(t, "attached") {
			g := neon.Generation(rapid.Uint32().Draw(t, "generation"))
			l.Gen = &g
		}
		return l
	})
	rapid.Check(t, func(t *rapid.T) {
		re := neon.ReAttachResponse{Tenants: rapid.SliceOfN(location, 0, 3).Draw(t, "locations")}
		if want, _ := json.Marshal(re); string(appendReAttach(nil, &re)) != string(want) {
			t.Fatalf("got  %s\nwant %s", appendReAttach(nil, &re), want)
		}
		var v neon.ValidateResponse
		for _, id := range rapid.SliceOfN(shard, 0, 3).Draw(t, "shards") {
			v.Tenants = append(v.Tenants, neon.ValidatedTenant{
				Shard: id, Valid: rapid.Bool().Draw(t, "valid"),
			})
		}
		if want, _ := json.Marshal(v); string(appendValidate(nil, &v)) != string(want) {
			t.Fatalf("got  %s\nwant %s", appendValidate(nil, &v), want)
		}
	})
}

func BenchmarkReAttachOf2000Shards(b *testing.B) {
	var r neon.ReAttachResponse
	g := neon.Generation(7)
	for i := range 2000 {
		t := neon.ReAttachTenant{
			Shard: neon.ShardID{Tenant: neon.TenantID{byte(i), byte(i >> 8)}, Count: 4},
			Mode:  neon.Secondary, StripeSize: neon.DefaultStripeSize,
		}
		if i%2 == 0 {
			t.Mode, t.Gen = neon.AttachedSingle, &g
		}
		r.Tenants = append(r.Tenants, t)
	}
	b.Run("printed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			appendReAttach(nil, &r)
		}
	})
	b.Run("encoded", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			encoded(r)
		}
	})
}
