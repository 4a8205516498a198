package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
}

func TestWriteReplacesTheWholeFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"a long first content", "short"} {
		if err := Write(name, text(want)); err != nil {
			t.Fatal(err)
		}
		if have, err := os.ReadFile(name); err != nil || string(have) != want {
			t.Fatalf("read %q, %v", have, err)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestAFailureLeavesTheOldContentAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := Write(name, text("old")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err := Write(name, func(w io.Writer) error { return errors.Join(text("half")(w), broken) })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if have, _ := os.ReadFile(name); string(have) != "old" {
		t.Errorf("the file holds %q", have)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
	if err := Write(filepath.Join(dir, "missing", "f"), text("x")); err == nil {
		t.Error("wrote into a directory that is not there")
	}
}

func TestARehearsalLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := Rehearse(filepath.Join(dir, "f"), text("x")); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
	for _, name := range []string{dir, filepath.Join(dir, "missing", "f")} {
		if err := Rehearse(name, text("x")); err == nil {
			t.Errorf("%s can be written", name)
		}
	}
}
