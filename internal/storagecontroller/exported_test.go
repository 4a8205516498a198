package storagecontroller

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"quorate/internal/neondb"
)

// TestNoReplicaStartsOnAnExportedDirectory: until the export is known to have written nothing.
func TestNoReplicaStartsOnAnExportedDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := checkExported(dir); err != nil {
		t.Fatal(err)
	}
	takeBack, err := noteExported(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := checkExported(dir); !errors.Is(err, errExported) {
		t.Errorf("checked: %v", err)
	}
	if _, err := command(t, "--dev", "--listen", "127.0.0.1:0", "--data-dir", dir); !errors.Is(err,
		errExported) {
		t.Errorf("started: %v", err)
	}
	again, err := noteExported(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if again(); !errors.Is(checkExported(dir), errExported) {
		t.Error("an export that failed takes back the mark of one before it")
	}
	if takeBack(); checkExported(dir) != nil {
		t.Error("the mark is not taken back")
	}
	if !nothingWritten(fmt.Errorf("x: %w", neondb.ErrForeign)) || nothingWritten(nil) ||
		nothingWritten(errors.New("connection lost")) {
		t.Error("what has written nothing is not told from what may have")
	}
}
