package neon

import (
	"math"
	"testing"
	"time"
)

func TestDurationPrintsNormalised(t *testing.T) {
	for in, want := range map[string]string{
		"300s": "5m", "3600s": "1h", "86400s": "1day", "90s": "1m 30s", "0s": "0s", "0 years": "0s",
		"1h2m3s": "1h 2m 3s", "2days": "2days", "1week": "7days", "12M": "1year 43m 12s",
		"10years": "10years",
		"1 0s":    "10s", " 20 min  17 nsec ": "20m 17ns", "1500ms": "1s 500ms", "7us": "7us",
		"30d":         "30days",
		"3months 1hr": "3months 1h", "1000000000ns": "1s",
	} {
		d, err := ParseDuration(in)
		if err != nil {
			t.Errorf("ParseDuration(%q): %v", in, err)
		} else if d.String() != want {
			t.Errorf("ParseDuration(%q) prints %q, want %q", in, d, want)
		}
	}
}

func TestDurationRefusesWhatIsNone(t *testing.T) {
	for _, in := range []string{
		"", "  ", "5", "s", "5x", "-5s", "1.5h", "5s 3", "2h min", "99999999999999999999s",
		"1000years",
		"18446744073709551615s 18446744073709551615s", "5 m sec",
	} {
		if d, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", in, d)
		}
	}
}

func TestDurationCoversItsRange(t *testing.T) {
	for _, d := range []Duration{0, 1, math.MaxInt64, Duration(time.Hour - 1)} {
		if got, err := ParseDuration(d.String()); err != nil || got != d {
			t.Errorf("%d printed as %q came back as %d, %v", d, d, got, err)
		}
	}
	if got := Duration(-time.Second).String(); got != "0s" {
		t.Errorf("a negative duration prints %q", got)
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{
		"5m", "1h 30m", "1day", "10 years", "1500ms", "", "-1s", "1 0s", "9us1ns", "µs", "292years",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sp, err := parseSpan(s)
		if err == nil {
			if again, err := parseSpan(sp.String()); err != nil || again != sp {
				t.Fatalf("%q parsed to %v, which prints %q and parses to %v, %v", s, sp, sp, again,
					err)
			}
		}
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Fatalf("%q parsed to %d, which prints %q and parses to %d, %v", s, d, d, again, err)
		}
	})
}
