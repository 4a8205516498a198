package storagecontroller

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"quorate/internal/tracelog"
	"quorate/testcluster/realpostgres"
)

// child is the variable that makes the test's program one that ends in some way.
const child = "STORAGECONTROLLER_TEST_CHILD"

func TestMain(m *testing.M) {
	how := os.Getenv(child)
	if how == "" {
		os.Exit(realpostgres.Main(m.Run))
	}
	lines := openLog()
	log := tracelog.New(lines, slog.LevelInfo)
	for range 5_000 {
		log.Info("a line")
	}
	log.Info("the last line")
	lines.Close(lastLines)
	if how == "panic" {
		for range 5_000 {
			_, _ = io.WriteString(os.Stderr, "more than a pipe holds\n")
		}
		panic("the last words")
	}
	complain("the last words\n")
	os.Exit(exitError)
}

// TestAProcessEndsWhoeverReadsItsOutput: with a reader it tells all, with
// a reader that hangs it does not wait for long, and without one it ends as it
// would otherwise.
func TestAProcessEndsWhoeverReadsItsOutput(t *testing.T) {
	for _, how := range []string{"panic", "error"} {
		code := map[string]int{"panic": 2, "error": exitError}[how]
		t.Run(how+"/read", func(t *testing.T) {
			text, got := run(t, how, func(out *os.File) string {
				text, _ := io.ReadAll(out)
				return string(text)
			})
			if got != code || !strings.Contains(text, "the last line\n") ||
				!strings.Contains(text, "the last words") ||
				strings.Count(text, "INFO a line\n") != 5_000 {
				t.Errorf("exits with %d and says\n%.300s…%.300s", got, text,
					text[max(0, len(text)-300):])
			}
		})
		t.Run(how+"/hangs", func(t *testing.T) {
			if _, got := run(t, how, nil); got != code {
				t.Errorf("exits with %d", got)
			}
		})
		t.Run(how+"/gone", func(t *testing.T) {
			_, got := run(t, how, func(out *os.File) string { _ = out.Close(); return "" })
			if got != code {
				t.Errorf("exits with %d", got)
			}
		})
	}
}

// run runs the program and returns what read made of its output, and its exit code.
func run(t *testing.T, how string, read func(*os.File) string) (text string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), child+"="+how), in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	if read != nil {
		text = read(out)
	}
	late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait()
	return text, cmd.ProcessState.ExitCode()
}

// TestWhatIsNoPipeIsLeftAlone: a file would get a position of its own.
func TestWhatIsNoPipeIsLeftAlone(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), child+"=error"), file, file
	_ = cmd.Run()
	text, err := os.ReadFile(file.Name())
	if err != nil || !bytes.HasSuffix(text, []byte("the last line\nthe last words\n")) ||
		bytes.Count(text, []byte("INFO a line\n")) != 5_000 {
		t.Errorf("%v: the file ends with %q", err, text[max(0, len(text)-200):])
	}
}
