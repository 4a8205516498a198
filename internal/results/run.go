package results

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Run is everything that one command has measured.
type Run struct {
	Revision string  `json:"revision"` // the commit of what was measured
	Platform string  `json:"platform"` // where, such as the name of a pool of machines
	Suites   []Suite `json:"result"`

	Modified bool              `json:"modified,omitempty"` // the tree had changes
	Against  string            `json:"against,omitempty"`  // the commit of the other binary
	Time     time.Time         `json:"recorded_at"`
	Command  string            `json:"command"`
	Settings map[string]string `json:"settings,omitempty"`
	Machine  Machine           `json:"machine"`

	// RemoteCluster marks a run that needs a cluster of several machines that exists.
	RemoteCluster bool `json:"remote_cluster"`

	Series   []Series  `json:"series,omitempty"`
	Drawings []Drawing `json:"drawings,omitempty"`
}

// Unknown is the commit of what does not say its own, as Neon's tests have it.
const Unknown = "local"

// Suite is what one part of a benchmark has found. The misspelt key is that of Neon's results.
type Suite struct {
	Name  string   `json:"suit"`
	Title string   `json:"title"`
	Took  float64  `json:"total_duration"` // seconds
	Noise Noise    `json:"noise"`
	Data  []Result `json:"data"`
}

// Machine is what was measured on.
type Machine struct {
	CPUs   int    `json:"cpus"`
	Model  string `json:"cpu"`
	Memory int64  `json:"memory"` // bytes
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// Series is how something went over time, and what happened meanwhile.
type Series struct {
	Name   string       `json:"name"`
	Title  string       `json:"title"`
	Unit   string       `json:"unit"`
	Points [][2]float64 `json:"points"` // seconds since its beginning, value
	Marks  []Mark       `json:"marks,omitempty"`
}

// Mark is one moment of a series.
type Mark struct {
	At   float64 `json:"at"` // seconds since its beginning
	Text string  `json:"text"`
}

// Drawing is a picture that comes with a run. It is for the report alone.
type Drawing struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	SVG   string `json:"svg"`
}

// Begin makes a run of a binary on this machine. The commit is that of the binary, or, when
// it has none, that of this program.
func Begin(binary, platform, command string) *Run {
	r := &Run{Platform: platform, Command: command, Time: time.Now().UTC().Truncate(time.Second)}
	r.Revision, r.Modified = Commit(binary)
	if r.Platform == "" {
		r.Platform = "local"
	}
	r.Machine = thisMachine()
	return r
}

// Commit is the commit that a Go program was built from, and whether the tree had changes;
// that of this program for one that does not say.
func Commit(binary string) (revision string, modified bool) {
	info, err := buildinfo.ReadFile(binary)
	if err == nil {
		revision, modified = commitOf(info)
	}
	if own, ok := debug.ReadBuildInfo(); revision == "" && ok {
		revision, modified = commitOf(own)
	}
	if revision == "" {
		revision = Unknown
	}
	return revision, modified
}

func commitOf(info *debug.BuildInfo) (revision string, modified bool) {
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	return revision, modified
}

func thisMachine() Machine {
	m := Machine{
		CPUs: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(),
		Model:  lineOf("/proc/cpuinfo", "model name"),
		Kernel: strings.TrimSpace(readFile("/proc/sys/kernel/osrelease")),
	}
	kb, _, _ := strings.Cut(lineOf("/proc/meminfo", "MemTotal"), " ")
	if n, err := strconv.ParseInt(kb, 10, 64); err == nil {
		m.Memory = n << 10
	}
	return m
}

// lineOf is what follows the colon of a line of a file.
func lineOf(file, name string) string {
	for line := range strings.Lines(readFile(file)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func readFile(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(b)
}

// Missed counts the results that missed a goal.
func (r *Run) Missed() (n int) {
	for _, s := range r.Suites {
		for _, d := range s.Data {
			if d.Missed() {
				n++
			}
		}
	}
	return n
}

// ID tells a run from others by its content, so that one that is read twice is known. Pictures
// do not count.
func (r *Run) ID() string {
	b, err := json.Marshal(r.WithoutDrawings())
	if err != nil {
		panic(fmt.Sprintf("a run is not JSON: %v", err)) // no value of it can be the reason
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// WithoutDrawings is the run without its pictures.
func (r *Run) WithoutDrawings() *Run {
	plain := *r
	plain.Drawings = nil
	return &plain
}

// FileName is the name of the run's file in a directory of results: the time first, so that
// Neon's tool for such directories finds it.
func (r *Run) FileName() string { return fmt.Sprintf("%d_%s.json", r.Time.Unix(), r.Revision) }

// WriteJSON writes the run.
func (r *Run) WriteJSON(to io.Writer) error {
	out := json.NewEncoder(to)
	out.SetIndent("", " ")
	return out.Encode(r)
}

// Read reads a run, also one of Neon's tests, which has no time: at is its time then.
func Read(from io.Reader, at time.Time) (*Run, error) {
	var r Run
	if err := json.NewDecoder(from).Decode(&r); err != nil {
		return nil, fmt.Errorf("read a run: %w", err)
	}
	if r.Revision == "" || r.Platform == "" {
		return nil, fmt.Errorf("read a run: it has no revision or no platform")
	}
	if r.Time.IsZero() {
		r.Time = at.UTC()
	}
	for _, s := range r.Suites {
		for i := range s.Data {
			if d := &s.Data[i]; d.N == 0 && d.Better != "" && d.Samples == nil {
				d.sum([]float64{d.Value})
			}
		}
	}
	return &r, nil
}
