package neon

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func mustConfig(t testing.TB, text string) TenantConfig {
	t.Helper()
	c, err := ParseTenantConfig([]byte(text), RejectUnknown)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fullConfig sets every field, in reverse order and with values to normalise.
func fullConfig() string {
	values := map[kind]string{
		kindUint: "18446744073709551615", kindPositive: "1", kindByte: "255", kindBool: "true",
		kindDuration:  `"90 s"`,
		kindAlgorithm: `{"x":1,"kind":"tiered"}`,
		kindEviction:  `{"threshold":"23 hours","period":"60s","kind":"LayerAccessThreshold"}`,
		kindThrottle:  `{"fair":true,"max":4,"refill_amount":3,"refill_interval":"50ms","initial":1,"task_kinds":["A","B"]}`,
		kindRatio:     `{"denominator":2,"numerator":1}`,
	}
	var b strings.Builder
	for i := len(configFields) - 1; i >= 0; i-- {
		b.WriteString(`,"` + configFields[i].name + `" : ` + values[configFields[i].kind])
	}
	return "{" + b.String()[1:] + "}"
}

func TestTenantConfigIsCanonical(t *testing.T) {
	c := mustConfig(t, fullConfig())
	at := 0
	for _, f := range configFields {
		i := strings.Index(c.JSON()[at:], `"`+f.name+`":`)
		if i < 0 {
			t.Fatalf("%s is missing or out of order in %s", f.name, c.JSON())
		}
		at += i
	}
	for _, want := range []string{
		`"pitr_interval":"1m 30s"`,
		`"compaction_algorithm":{"kind":"tiered"}`,
		`"eviction_policy":{"kind":"LayerAccessThreshold","period":"1m","threshold":"23h"}`,
		`"timeline_get_throttle":{"task_kinds":["A","B"],"initial":1,"refill_interval":"50ms","refill_amount":3,"max":4}`,
		`"sampling_ratio":{"numerator":1,"denominator":2}`,
		`"checkpoint_distance":18446744073709551615,`,
	} {
		if !strings.Contains(c.JSON(), want) {
			t.Errorf("%s is not in %s", want, c.JSON())
		}
	}
	if again := mustConfig(t, c.JSON()); again != c {
		t.Errorf("canonical text is not a fixed point:\n%s\n%s", c.JSON(), again.JSON())
	}
}

func TestTenantConfigGolden(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                                        `{}`,
		` { "pitr_interval" : null } `:              `{}`,
		`{"pitr_interval":"604800s"}`:               `{"pitr_interval":"7days"}`,
		`{"checkpoint_timeout":"1000 years"}`:       `{"checkpoint_timeout":"1000years"}`,
		`{"gc_period":"1h","gc_horizon":0}`:         `{"gc_horizon":0,"gc_period":"1h"}`,
		`{"eviction_policy":{"kind":"NoEviction"}}`: `{"eviction_policy":{"kind":"NoEviction"}}`,
		`{"sampling_ratio":null}`:                   `{}`,
		`{"gc\u005fhorizon":1}`:                     `{"gc_horizon":1}`,
	} {
		if got := mustConfig(t, in).JSON(); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

func TestTenantConfigRefusesBadValues(t *testing.T) {
	for _, in := range []string{
		``, `null`, `[]`, `{`, `{}{}`, `{"pitr_interval":5}`, `{"pitr_interval":"5"}`,
		`{"gc_horizon":"5"}`,
		`{"gc_horizon":-1}`, `{"gc_horizon":1.0}`, `{"gc_horizon":1e3}`,
		`{"gc_horizon":18446744073709551616}`,
		`{"max_lsn_wal_lag":0}`, `{"image_layer_creation_check_threshold":256}`,
		`{"lazy_slru_download":1}`,
		`{"compaction_algorithm":"legacy"}`, `{"compaction_algorithm":{"kind":"Legacy"}}`,
		`{"compaction_algorithm":{}}`,
		`{"eviction_policy":{"kind":"LayerAccessThreshold","period":"1m"}}`,
		`{"eviction_policy":{"kind":"x"}}`,
		`{"sampling_ratio":{"numerator":1}}`, `{"gc_horizon":1,"gc_horizon":2}`,
		`{"no_such_field":1}`,
		`{"timeline_get_throttle":{"task_kinds":[1],"initial":1,"refill_interval":"1s","refill_amount":1,"max":1}}`,
		`{"timeline_get_throttle":{"task_kinds":[],"initial":1,"refill_interval":"1s","refill_amount":0,"max":1}}`,
	} {
		_, err := ParseTenantConfig([]byte(in), RejectUnknown)
		if !errors.Is(err, &Error{Code: BadRequest}) {
			t.Errorf("%s: error is %v, want BadRequest", in, err)
		}
	}
}

func TestTenantConfigIgnoresUnknownWhenAsked(t *testing.T) {
	c, err := ParseTenantConfig([]byte(`{"from_the_future":{"a":[1]},"gc_horizon":7}`),
		IgnoreUnknown)
	if err != nil || c.JSON() != `{"gc_horizon":7}` {
		t.Errorf("got %s, %v", c.JSON(), err)
	}
}

func TestTenantConfigPatch(t *testing.T) {
	c := mustConfig(t, `{"gc_horizon":1,"pitr_interval":"1h","heatmap_period":"5m"}`)
	got, err := c.Patch(
		[]byte(`{"gc_horizon":null,"pitr_interval":"120s","checkpoint_distance":9}`))
	if want := `{"checkpoint_distance":9,"pitr_interval":"2m","heatmap_period":"5m"}`; err != nil ||
		got.JSON() != want {
		t.Errorf("patched to %s, %v, want %s", got.JSON(), err, want)
	}
	if _, err := c.Patch([]byte(`{"gc_horizons":1}`)); CodeOf(err) != BadRequest {
		t.Errorf("a patch with an unknown field: %v", err)
	}
	if got, err := c.Patch([]byte(
		`{"gc_horizon":null,"pitr_interval":null,"heatmap_period":null}`)); err != nil ||
		!got.IsZero() {
		t.Errorf("unsetting everything left %s, %v", got.JSON(), err)
	}
}

func TestTenantConfigWithAndWithout(t *testing.T) {
	c, err := TenantConfig{}.With("pitr_interval", []byte(`"60s"`))
	if err != nil || c.JSON() != `{"pitr_interval":"1m"}` {
		t.Fatalf("With: %s, %v", c.JSON(), err)
	}
	if text, ok := c.Field("pitr_interval"); !ok || text != `"1m"` {
		t.Errorf("Field: %q, %v", text, ok)
	}
	if _, ok := c.Field("gc_horizon"); ok {
		t.Error("an unset field is set")
	}
	if _, err := c.With("nope", []byte("1")); CodeOf(err) != BadRequest {
		t.Errorf("With an unknown field: %v", err)
	}
	if !c.Without("pitr_interval").IsZero() || c.Without("gc_horizon") != c {
		t.Error("Without removed the wrong field")
	}
}

func TestForLocationUploadsHeatmapsOnlyForSecondaries(t *testing.T) {
	for _, tc := range []struct {
		conf        string
		secondaries int
		want        string
	}{
		{`{}`, 0, `{}`},
		{`{}`, 1, `{"heatmap_period":"1m"}`},
		{`{"gc_horizon":1}`, 2, `{"gc_horizon":1,"heatmap_period":"1m"}`},
		{`{"heatmap_period":"5m","gc_horizon":1}`, 1, `{"gc_horizon":1,"heatmap_period":"5m"}`},
		{`{"heatmap_period":"5m","gc_horizon":1}`, 0, `{"gc_horizon":1}`},
		{`{"heatmap_period":"5m"}`, 0, `{}`},
		{`{"timeline_get_throttle":{"task_kinds":["\"heatmap_period\":"],"initial":1,"refill_interval":"1s","refill_amount":1,"max":1}}`,
			0,
			`{"timeline_get_throttle":{"task_kinds":["\"heatmap_period\":"],"initial":1,"refill_interval":"1s","refill_amount":1,"max":1}}`},
	} {
		if got := mustConfig(t, tc.conf).ForLocation(tc.secondaries); got != mustConfig(t,
			tc.want) {
			t.Errorf("%s with %d secondaries became %s, want %s", tc.conf, tc.secondaries,
				got.JSON(), tc.want)
		}
	}
}

func FuzzTenantConfig(f *testing.F) {
	for _, s := range []string{
		`{}`, fullConfig(), `{"gc_horizon":1,"x":[{}]}`, `{"pitr_interval":"1h`,
		`{"gc_horizon":01}`, `{"a":"\ud800"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		strict, strictErr := ParseTenantConfig(b, RejectUnknown)
		c, err := ParseTenantConfig(b, IgnoreUnknown)
		if err != nil {
			return
		}
		if strictErr == nil && strict != c {
			t.Fatalf("%q: strict %s, lenient %s", b, strict.JSON(), c.JSON())
		}
		if !json.Valid([]byte(c.JSON())) {
			t.Fatalf("%q: %s is no JSON", b, c.JSON())
		}
		for _, same := range []func() (TenantConfig, error){
			func() (TenantConfig, error) {
				return ParseTenantConfig([]byte(c.JSON()),
					RejectUnknown)
			},
			func() (TenantConfig, error) { return c.Patch([]byte(c.JSON())) },
			func() (TenantConfig, error) { return TenantConfig{}.Patch([]byte(c.JSON())) },
		} {
			if got, err := same(); err != nil || got != c {
				t.Fatalf("%q: %s became %s, %v", b, c.JSON(), got.JSON(), err)
			}
		}
		if on := c.ForLocation(1); on.ForLocation(1) != on ||
			on.ForLocation(0) != c.ForLocation(0) {
			t.Fatalf("%s: ForLocation is not stable", c.JSON())
		}
	})
}

func BenchmarkForLocation(b *testing.B) {
	for name, text := range map[string]string{
		"empty": `{}`, "small": `{"gc_horizon":1,"pitr_interval":"7days"}`, "full": fullConfig(),
	} {
		c := mustConfig(b, text).Without("heatmap_period")
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.ForLocation(1)
			}
		})
	}
}
