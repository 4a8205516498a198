package cron

import (
	"testing"
	"time"
)

func TestSchedulesNameTheirNextTime(t *testing.T) {
	after := time.Date(2025, 2, 28, 23, 59, 30, 500, time.UTC) // a Friday
	for text, want := range map[string]string{
		"* * * * * *":                     "2025-02-28T23:59:31Z",
		"0 * * * * *":                     "2025-03-01T00:00:00Z",
		"*/20 59 23 * * *":                "2025-02-28T23:59:40Z",
		"30 59 23 * * *":                  "2025-03-01T23:59:30Z",
		"15,45 10-12 */6 * * *":           "2025-03-01T00:10:15Z",
		"0 0 4 ? * MON":                   "2025-03-03T04:00:00Z",
		"0 0 4 * * 1":                     "2025-03-02T04:00:00Z", // Sunday
		"0 0 4 * * Tuesday-Thursday":      "2025-03-04T04:00:00Z",
		"0 0 0 29 feb *":                  "2028-02-29T00:00:00Z",
		"0 0 0 13 * 6":                    "2025-06-13T00:00:00Z", // the first Friday the 13th
		"0 0 0 1 1 * 2030/5":              "2030-01-01T00:00:00Z",
		"59 59 23 31 12 * 2099-2100":      "2099-12-31T23:59:59Z",
		"1/30 0 0 1 * *":                  "2025-03-01T00:00:01Z",
		"@hourly":                         "2025-03-01T00:00:00Z",
		"@daily":                          "2025-03-01T00:00:00Z",
		"@weekly":                         "2025-03-02T00:00:00Z",
		"@monthly":                        "2025-03-01T00:00:00Z",
		"@yearly":                         "2026-01-01T00:00:00Z",
		"0 0 0 31 11 *":                   "",
		"0 0 0 1 1 * 1999":                "",
		"  0   30  10 1,15   jul-SEP *  ": "2025-07-01T10:30:00Z",
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got := ""
		if at, ok := s.Next(after); ok {
			got = at.Format(time.RFC3339)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestBadSchedulesAreRefused(t *testing.T) {
	for _, text := range []string{
		"", "* * * * *", "* * * * * * * *", "60 * * * * *", "* * 24 * * *", "* * * 0 * *",
		"* * * 32 * *", "* * * * 13 *", "* * * * * 0", "* * * * * 8",
		"5-3 * * * * *", "*/0 * * * * *", "*/x * * * * *", "a * * * * *", "1, * * * * *",
		"* * * * mo *", "* * * * * * 1969", "@reboot", "-1 * * * * *",
	} {
		if s, err := Parse(text); err == nil {
			t.Errorf("%q was taken as %+v", text, s)
		}
	}
}

// The next time comes after, matches, and is the first that does.
func FuzzSchedule(f *testing.F) {
	f.Add("*/7 1-30/3 0,12 * jan-dec/2 mon,5", int64(1_700_000_000))
	f.Add("@weekly", int64(4_000_000_000))
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		s, err := Parse(text)
		if err != nil || unix < 0 || unix > 4_102_444_800 {
			return
		}
		after := time.Unix(unix, 0).UTC()
		at, ok := s.Next(after)
		if !ok {
			return
		}
		matches := func(x time.Time) bool {
			return s.onDay(x) && s.hour&(1<<x.Hour()) != 0 && s.min&(1<<x.Minute()) != 0 &&
				s.sec&(1<<x.Second()) != 0
		}
		if !at.After(after) || !matches(at) {
			t.Fatalf("%q after %s: %s", text, after, at)
		}
		for x := after.Add(time.Second); x.Before(at) &&
			x.Sub(after) < time.Hour; x = x.Add(time.Second) {
			if matches(x) {
				t.Fatalf("%q after %s: %s comes before %s", text, after, x, at)
			}
		}
	})
}
