package neon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// goldenLines are the texts of testdata/wire.golden whose name has the prefix.
func goldenLines(tb testing.TB, prefix string) (texts [][]byte) {
	tb.Helper()
	all, err := os.ReadFile("testdata/wire.golden")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(name, prefix) {
			texts = append(texts, []byte(text))
		}
	}
	return texts
}

// FuzzWire holds every decoder of the wire to one property: what was accepted
// prints, and the printed text is accepted and gives the same value.
func FuzzWire(f *testing.F) {
	decoders := []any{
		NodeRegister{}, NodeConfigure{}, LocationConfig{}, LocationConfigRequest{},
		LocationListing{}, TenantCreateRequest{}, ConfigRequest{},
		PolicyRequest{}, MigrateRequest{}, ReAttachRequest{}, ValidateRequest{}, Utilization{},
		SecondaryProgress{}, WaitLSNRequest{},
		TimelineCreateRequest{}, Placement{}, NotifyAttach{},
		SafekeeperUpsert{}, SafekeeperPolicyRequest{}, Membership{}, SafekeeperTimelineCreate{},
		PullTimelineRequest{}, MembershipSwitched{},
		TimelineLocate{}, TimelineImportRequest{}, SafekeeperMigrateRequest{}, NotifySafekeepers{},
		ShardImport{}, ImportStatusRequest{}, ImportStatusReport{}, ImportComplete{},
	}
	for i := range decoders {
		for _, text := range goldenLines(f, "") {
			f.Add(uint8(i), text)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		typ := reflect.TypeOf(decoders[int(which)%len(decoders)])
		v, again := reflect.New(typ), reflect.New(typ)
		if json.Unmarshal(b, v.Interface()) != nil {
			return
		}
		text, err := json.Marshal(v.Interface())
		if err != nil {
			t.Fatalf("%s: %q was accepted and does not print: %v", typ, b, err)
		}
		if err := json.Unmarshal(text, again.Interface()); err != nil {
			if isNull(bytes.TrimSpace(b)) ||
				bytes.Contains(text, []byte(`"availability_zone_id":null`)) {
				// encoding/json leaves a value alone on null; an empty zone prints as
				// null, which no request may say
				return
			}
			t.Fatalf("%s: %q was accepted, its print %s is not: %v", typ, b, text, err)
		}
		back, err := json.Marshal(again.Interface())
		if err != nil || !bytes.Equal(text, back) {
			t.Fatalf("%s: %q prints %s, then %s, %v", typ, b, text, back, err)
		}
	})
}

// FuzzListing compares the one-pass parser with encoding/json on valid JSON, and
// demands that it survives anything else.
func FuzzListing(f *testing.F) {
	for _, text := range goldenLines(f, "location_") {
		f.Add(text)
	}
	for _, s := range []string{
		`{"tenant_shards":[]}`, `{"tenant_shards":[["`, `{"tenant_shards":[[,]]}`,
		`{"a":{"b":[1,"]"]},"tenant_shards":[]}`, `[`, `{"\`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseLocationListing(b)
		if err != nil || !json.Valid(b) {
			return
		}
		var want struct {
			Shards []json.RawMessage `json:"tenant_shards"`
		}
		if bytes.Count(b, []byte("tenant_shards")) > 1 || json.Unmarshal(b, &want) != nil {
			return
		}
		if len(got) != len(want.Shards) {
			t.Fatalf("%q: %d entries, want %d", b, len(got), len(want.Shards))
		}
		for i, raw := range want.Shards {
			var id ShardID
			var conf *LocationConfig
			err := json.Unmarshal(raw, &[]any{&id, &conf})
			if err != nil && got[i].Config == nil {
				conf, err = nil, json.Unmarshal(raw, &[]any{&id, new(json.RawMessage)})
			}
			if err != nil {
				t.Fatalf("%q: entry %d was accepted but encoding/json says %v", b, i, err)
			}
			if id != got[i].Shard || !reflect.DeepEqual(conf, got[i].Config) {
				t.Fatalf("%q: entry %d is %+v, want %+v %+v", b, i, got[i], id, conf)
			}
		}
	})
}

// TestAnOddLocationIsUnknown: one entry that cannot be read takes nothing from the
// others. A shard that cannot be named makes the listing one that cannot be read.
func TestAnOddLocationIsUnknown(t *testing.T) {
	good, err := json.Marshal(LocationConfig{
		Mode: Secondary, SecondaryConf: &SecondaryConf{Warm: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, odd := range []string{
		`{"mode":"AttachedTwice"}`, `{}`, `{"mode":"AttachedSingle","generation":-1}`, `7`,
	} {
		text := `{"tenant_shards":[["` + tenantText + `",` + odd + `],["` + tenantText +
			`-0102",` + string(good) + `]]}`
		l, err := ParseLocationListing([]byte(text))
		if err != nil || len(l) != 2 || l[0].Config != nil || l[1].Config == nil {
			t.Errorf("%s: %+v, %v", odd, l, err)
		}
	}
	if _, err := ParseLocationListing([]byte(`{"tenant_shards":[["x",{}]]}`)); err == nil {
		t.Error("a shard that cannot be named")
	}
}

// FuzzIDs holds the text forms of ids to print∘parse = identity.
func FuzzIDs(f *testing.F) {
	for _, s := range []string{
		tenantText, tenantText + "-0102", tenantText + "x0102", strings.ToUpper(tenantText),
		"0/169AD58", " FFFFFFFF/FFFFFFFF\n", "1/2/3", "/", "+1/1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseShardID(s); err == nil {
			if again, err := ParseShardID(id.String()); err != nil ||
				again.Compare(id) != 0 && id.Count != 0 {
				t.Fatalf("%q: %s, %s, %v", s, id, again, err)
			}
		}
		if lsn, err := ParseLsn(s); err == nil {
			if again, err := ParseLsn(lsn.String()); err != nil || again != lsn {
				t.Fatalf("%q: %s, %s, %v", s, lsn, again, err)
			}
		}
		if id, err := ParseTimelineID(s); err == nil {
			if again, err := ParseTimelineID(id.String()); err != nil || again != id {
				t.Fatalf("%q: %s, %s, %v", s, id, again, err)
			}
		}
	})
}

func TestListingSharesConfigurations(t *testing.T) {
	l, err := ParseLocationListing(bigListing(t, 100))
	if err != nil || len(l) != 100 {
		t.Fatal(len(l), err)
	}
	for i, e := range l {
		if e.Shard.Number != ShardNumber(i%4) || e.Config.TenantConf != l[0].Config.TenantConf ||
			*e.Config.Generation != Generation(i) {
			t.Errorf("entry %d is %+v %+v", i, e.Shard, e.Config)
		}
	}
}

func bigListing(tb testing.TB, n int) []byte {
	tb.Helper()
	l := make(LocationListing, n)
	conf := mustConfig(tb,
		`{"checkpoint_distance":268435456,"gc_period":"1h","pitr_interval":"7days","heatmap_period":"1m"}`)
	for i := range l {
		id := ShardID{Number: ShardNumber(i % 4), Count: 4}
		copy(id.Tenant[:], fmt.Sprintf("%016d", i/4))
		l[i] = ListedLocation{id, &LocationConfig{
			Mode: AttachedSingle, Generation: new(Generation(i)), ShardNumber: id.Number,
			ShardCount: 4, StripeSize: 2048, TenantConf: conf,
		}}
	}
	b, err := json.Marshal(l)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func BenchmarkListingDecode100k(b *testing.B) {
	text := bigListing(b, 100_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseLocationListing(text); err != nil {
			b.Fatal(err)
		}
	}
}
