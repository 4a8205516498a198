package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"quorate/internal/results"
)

// sample is a run with something for each picture.
func sample() *results.Run {
	gap := func(name, members string, d ...time.Duration) results.Result {
		return results.Durations("gap."+name, "a <gap>", d).With("members", members).
			WantWithin(results.Median, 60*time.Millisecond)
	}
	size := func(name, shards, unit string, v float64) results.Result {
		return results.Values(name, "cost", unit, results.Less, v).With("shards", shards).
			With("members", "3")
	}
	r := results.Begin("/nowhere", "ci", "quorate bench --only '<x>'")
	r.Suites = []results.Suite{
		{Name: "gap", Title: "Writes around kill -9", Data: []results.Result{
			gap("kill", "3", 20*time.Millisecond, 80*time.Millisecond),
			gap("kill", "1", 150*time.Millisecond, 180*time.Millisecond),
			results.Values("create.rate.ratio", "ratio", results.Times, results.More, 1.1, 1.2).
				With("members", "3"),
		}},
		{Name: "size", Title: "Size", Data: []results.Result{
			size("change.cpu", "1000", results.Seconds, 0.001),
			size("change.cpu", "100000", results.Seconds, 0.0013),
			size("memory.shard", "1000", results.Bytes, 37000),
			size("memory.shard", "100000", results.Bytes, 1500),
		}},
		{Name: "empty", Title: "Empty", Data: []results.Result{
			results.Values("nothing", "nothing", results.Count, results.Less),
		}},
	}
	r.Series = []results.Series{{
		Name: "writes", Title: "Writes", Unit: "writes/s",
		Points: [][2]float64{{0, 200}, {0.1, 0}, {0.2, 210}},
		Marks: []results.Mark{
			{At: 0.05, Text: "kill"}, {At: 0.1, Text: "freeze"}, {At: 0.2, Text: "kill"},
		},
	}}
	r.Drawings = []results.Drawing{{
		Name: "create", Title: "Time", SVG: `<?xml version="1.0"?><svg><text>flames</text></svg>`,
	}}
	return r
}

func TestAReportHasEverythingOfARun(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, sample()); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{
		"a &lt;gap&gt;", "3 members", "1 member<", "20ms ✓", "150ms ✗", "≤ 60ms", "no value ✗",
		"1.100", "flames", "freeze", "change.cpu", "memory.shard", "prefers-color-scheme: dark",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if n := strings.Count(text, "<svg") - strings.Count(text, "<li>"); n != 5 {
		t.Errorf("%d pictures", n)
	}
}

// TestAReportNeedsNothingFromElsewhere: no address that a browser would fetch, and no colour in
// a plot that is the same in the light and in the dark.
func TestAReportNeedsNothingFromElsewhere(t *testing.T) {
	r := sample()
	r.Drawings = nil
	var b bytes.Buffer
	if err := Write(&b, r); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if found := regexp.MustCompile(`(?i)(src|href|url|@import|<script|<link)[=( ]`).
		FindString(text); found != "" {
		t.Errorf("it fetches something: %s", found)
	}
	plots := text[strings.Index(text, "<figure"):]
	if found := regexp.MustCompile(`#[0-9a-fA-F]{6}`).FindString(plots); found != "" {
		t.Errorf("a plot has the colour %s of its own", found)
	}
	if !strings.Contains(plots, "var(--series1)") || !strings.Contains(plots, "var(--fault)") {
		t.Error("a plot has no colour of the page")
	}
}

func TestPlotsAreWellFormed(t *testing.T) {
	plots, err := pictures(sample())
	if err != nil || len(plots) != 4 {
		t.Fatalf("%d plots, %v", len(plots), err)
	}
	for _, p := range plots {
		in := xml.NewDecoder(strings.NewReader(string(p.SVG)))
		for {
			if _, err := in.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", p.Title, err)
			}
		}
	}
}
