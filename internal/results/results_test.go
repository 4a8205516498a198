package results

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestASummaryIsOfAllSamples(t *testing.T) {
	r := Durations("x", "x", []time.Duration{4, 1, 3, 2, 10})
	if r.N != 5 || !near(r.Min, 1e-9) || !near(r.Median, 3e-9) || !near(r.Mean, 4e-9) ||
		!near(r.P99, 1e-8) || !near(r.Max, 1e-8) || r.Value != r.Median {
		t.Errorf("got %+v", r.Summary)
	}
	many := make([]float64, 12345)
	for i := range many {
		many[i] = float64(i)
	}
	r = Values("x", "x", Count, Less, many...)
	if r.N != 12345 || r.Max != 12344 || len(r.Samples) != maxSamples || r.Samples[0] != 0 ||
		r.Samples[maxSamples-1] != 12344 {
		t.Errorf("of %d samples %d are kept, %v to %v", r.N, len(r.Samples), r.Samples[0],
			r.Samples[len(r.Samples)-1])
	}
}

func TestGoalsAreBoundsFromTheSideThatIsWorse(t *testing.T) {
	for _, c := range []struct {
		better Better
		bound  float64
		missed bool
	}{{Less, 2, false}, {Less, 1.9, true}, {More, 2, false}, {More, 2.1, true}} {
		r := Values("x", "x", "1/s", c.better, 1, 2, 3).Want(Median, c.bound)
		if r.Missed() != c.missed {
			t.Errorf("%s %v: missed is %v", c.better, c.bound, r.Missed())
		}
	}
	if !Values("x", "x", "1/s", More).Missed() {
		t.Error("what was not measured has reached its goal")
	}
	if Durations("x", "x", []time.Duration{time.Second}).
		WantWithin(Max, time.Second).Missed() {
		t.Error("a bound itself is not reached")
	}
}

func TestPooledSamplesHaveOneSummary(t *testing.T) {
	a := Values("x", "x", "1/s", More, 1, 2).With("members", "3")
	b := Values("x", "x", "1/s", More, 3).With("members", "3")
	other := Values("x", "x", "1/s", More, 9).With("members", "1")
	got := Pool([]Result{a, other}, []Result{b})
	if len(got) != 2 || got[0].N != 3 || got[0].Max != 3 || got[1].N != 1 {
		t.Errorf("got %+v", got)
	}
	many := Values("x", "x", "1/s", More, make([]float64, 2500)...)
	if got = Pool([]Result{many}, []Result{many}); got[0].N != 5000 {
		t.Errorf("of twice 2,500 samples there are %d", got[0].N)
	}
	if len(a.Samples) != 2 {
		t.Error("pooling has changed what it was given")
	}
}

func TestTwoAreMeasuredInTurn(t *testing.T) {
	var order []Measured
	broken := errors.New("broken")
	measure := func(_ context.Context, who Measured) ([]Result, error) {
		order = append(order, who)
		if len(order) == 6 {
			return nil, broken
		}
		return []Result{Values("x", "x", "1/s", More, float64(len(order)))}, nil
	}
	this, other, err := InTurn(t.Context(), 4, measure)
	if !errors.Is(err, broken) ||
		!slices.Equal(order, []Measured{This, Other, Other, This, This, Other}) {
		t.Errorf("order %v, %v", order, err)
	}
	ratios := Ratios(this, other, "abc")
	// 1:2 and 4:3; the third pair has no second half
	if len(ratios) != 1 || !near(ratios[0].Min, 0.5) || !near(ratios[0].Max, 4.0/3) ||
		ratios[0].N != 2 || ratios[0].Labels["against"] != "abc" {
		t.Errorf("ratios %+v", ratios)
	}
}

func TestARatioRegressesOnlyWhenEveryRoundSaysSo(t *testing.T) {
	for _, c := range []struct {
		better  Better
		samples []float64
		want    bool
	}{
		{More, []float64{0.8, 0.85, 0.89}, true},
		{More, []float64{0.8, 0.85, 0.96}, false},
		{More, []float64{0.91, 0.92, 0.93}, false},
		{Less, []float64{1.11, 1.2, 1.3}, true},
		{Less, []float64{1.047, 1.2, 1.436}, false},
		{Less, []float64{1.05, 1.06, 1.07}, false},
	} {
		r := Values("x.ratio", "x", Times, c.better, c.samples...)
		if got := r.Regressed(1); got != c.want {
			t.Errorf("%s %v: %v", c.better, c.samples, got)
		}
	}
	if Values("x", "x", Seconds, Less, 100).Regressed(1) {
		t.Error("a time is no ratio")
	}
}

// sample is a run with everything in it.
func sample() *Run {
	r := Begin("/nowhere", "test-machine", "quorate bench")
	r.Suites = []Suite{{
		Name: "requests", Title: "Requests", Took: 12.5,
		Noise: Noise{Steal: 1, Load: 2, FsyncMedian: 0.001, FsyncMax: 0.004},
		Data: []Result{
			Values("create.rate", "create", "shards/s", More, 2000, 2100, 2200).
				With("members", "3").Want(Median, 4800).Noting("a note"),
			Durations("create.time", "one", []time.Duration{time.Millisecond}),
		},
	}}
	r.Series = []Series{{
		Name: "writes", Unit: "1/s", Points: [][2]float64{{0, 1}}, Marks: []Mark{{0.5, "kill"}},
	}}
	return r
}

func TestARunIsReadAsItWasWritten(t *testing.T) {
	r := sample()
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	back, err := Read(&b, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if back.ID() != r.ID() {
		t.Errorf("it has another id:\n%+v\n%+v", r, back)
	}
	r.Suites[0].Data[0] = r.Suites[0].Data[0].Noting("another")
	if back.ID() == r.ID() {
		t.Error("another run has the same id")
	}
}

// TestTheJSONHasTheShapeOfNeonsResults: their tool reads these keys, and has ten letters for a
// unit and forty for a commit.
func TestTheJSONHasTheShapeOfNeonsResults(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var theirs struct {
		Revision, Platform string
		Result             []struct {
			Suit          string
			TotalDuration *float64 `json:"total_duration"`
			Data          []struct {
				Name   string
				Value  *float64
				Unit   string
				Report string
				Labels map[string]string
			}
		}
	}
	if err := json.Unmarshal(b.Bytes(), &theirs); err != nil {
		t.Fatal(err)
	}
	if theirs.Revision == "" || len(theirs.Revision) > 40 || theirs.Platform != "test-machine" ||
		len(theirs.Result) != 1 || theirs.Result[0].Suit != "requests" || *theirs.Result[0].TotalDuration != 12.5 {
		t.Fatalf("got %+v", theirs)
	}
	d := theirs.Result[0].Data[0]
	if d.Name != "create.rate" || *d.Value != 2100 || d.Unit != "shards/s" || len(d.Unit) > 10 ||
		d.Report != "higher_is_better" || d.Labels["members"] != "3" {
		t.Errorf("got %+v", d)
	}
}

func TestNeonsOwnResultsAreRead(t *testing.T) {
	f, err := os.Open("testdata/1700000000_neon.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := Read(f, time.Unix(1700000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	d := r.Suites[0].Data[0]
	if r.Time.Unix() != 1700000000 || d.N != 1 || d.Median != d.Value || d.Missed() {
		t.Errorf("read %+v at %v", d, r.Time)
	}
}

func TestTextsSayWhatWasMeasured(t *testing.T) {
	var table bytes.Buffer
	r := sample()
	r.WriteTables(&table)
	for _, want := range []string{
		"create.rate members=3", "2,100 shards/s", "≥ 4,800 shards/s", "MISSED", "a note",
		"steal 1.0 %", "1ms", "test-machine",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("there is no %q in\n%s", want, table.String())
		}
	}
	if r.Missed() != 1 {
		t.Errorf("%d missed", r.Missed())
	}
}

func TestAMachineIsWatched(t *testing.T) {
	w := WatchMachine(t.Context(), t.TempDir())
	n := w.End()
	if n.FsyncMedian <= 0 || n.FsyncMax < n.FsyncMedian || n.Load < 0 || n.Steal < 0 {
		t.Errorf("saw %+v", n)
	}
	m := thisMachine()
	if m.CPUs < 1 || m.Memory < 1<<20 || m.Model == "" {
		t.Errorf("the machine is %+v", m)
	}
}

func TestNumbersArePrintedShort(t *testing.T) {
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{
		{1234567, "moves/s", "1,234,567 moves/s"}, {0.25, Seconds, "250ms"}, {90e6, Bytes, "90 MB"},
		{1419, Bytes, "1,419 B"}, {0.804, Percent, "0.80 %"}, {1.0512, Times, "1.051"},
		{0, Count, "0"}, {41.23e-6, Seconds, "41.23µs"}, {1.2345, Seconds, "1.23s"},
	} {
		if got := Format(c.v, c.unit); got != c.want {
			t.Errorf("%v %s is %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func TestAComparisonSaysWhatIsBetter(t *testing.T) {
	before, after := sample(), sample()
	after.Platform = "another"
	after.Suites[0].Data[0] = Values("create.rate", "create", "shards/s", More, 2300, 2400).
		With("members", "3")
	after.Suites[0].Data[1] = Durations("create.time", "one", []time.Duration{time.Second})
	var b bytes.Buffer
	if err := WriteComparison(&b, before, after); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PLATFORMS DIFFER", "1.095", "better", "1000.000", "WORSE"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("there is no %q in\n%s", want, b.String())
		}
	}
}

func TestWhatHasAGoalIsInOneTable(t *testing.T) {
	r := sample()
	alone := Values("create.rate", "create", "shards/s", More, 5000).With("members", "1").
		Want(Median, 100)
	r.Suites[0].Data = append(r.Suites[0].Data, alone, Values("none", "none", Count, Less).
		With("members", "3").Want(Max, 1))
	members, rows := Rows(r.Suites[0].Data)
	if !slices.Equal(members, []string{"3", "1", ""}) || len(rows) != 3 ||
		rows[0].Cells[1].Median != 5000 || len(rows[0].Goals) != 2 {
		t.Errorf("members %q, rows %+v", members, rows)
	}
	var b bytes.Buffer
	r.WriteGoals(&b)
	for _, want := range []string{
		"MEMBERS: 3", "2,100 shards/s  MISSED", "5,000 shards/s  ok", "no value  MISSED",
		"median ≥ 4,800 shards/s; with 1: ≥ 100 shards/s", "2 of 3 goals are missed",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("there is no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "create.time") {
		t.Errorf("something without a goal is in\n%s", b.String())
	}
}
