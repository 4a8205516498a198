package results

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/perf/benchfmt"
)

func TestBenchstatReadsWhatWeWrite(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteBenchstat(&b); err != nil {
		t.Fatal(err)
	}
	in := benchfmt.NewReader(bytes.NewReader(b.Bytes()), "run")
	lines := 0
	for in.Scan() {
		switch rec := in.Result().(type) {
		case *benchfmt.SyntaxError:
			t.Errorf("%v", rec)
		case *benchfmt.Result:
			lines++
		}
	}
	if in.Err() != nil || lines != 4 {
		t.Errorf("%d lines, %v in\n%s", lines, in.Err(), b.String())
	}
	file := filepath.Join(t.TempDir(), "run")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "tool", "benchstat", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Create.rate/members=3") {
		t.Errorf("benchstat: %v\n%s", err, out)
	}
}
