package storagecontroller

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"quorate/internal/atomicfile"
	"quorate/internal/handover"
	"quorate/internal/neondb"
)

// exportedFile in a data directory says that its state was handed to another controller. A
// replica that starts on it would lead beside that one.
const exportedFile = "exported"

var errExported = errors.New("the state of this data directory was exported to another controller")

// noteExported marks a directory before its state is written elsewhere: after a crash it may
// have been. The returned function takes the mark back.
func noteExported(dir string, at time.Time) (takeBack func(), err error) {
	name := filepath.Join(dir, exportedFile)
	if _, err := os.Stat(name); err == nil {
		return func() {}, nil // an export before this one may have succeeded
	}
	err = atomicfile.Write(name, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "storage_controller export wrote the state of this directory to a "+
			"database at %s.\n", at.UTC().Format(time.RFC3339))
		return err
	})
	return func() { _ = os.Remove(name) }, err
}

// nothingWritten reports whether an export has failed before it could have written anything.
func nothingWritten(err error) bool {
	for _, before := range []error{
		handover.ErrBlocked, neondb.ErrNotEmpty, neondb.ErrForeign, neondb.ErrOlder,
	} {
		if errors.Is(err, before) {
			return true
		}
	}
	return false
}

// checkExported refuses a directory whose state was handed out.
func checkExported(dir string) error {
	name := filepath.Join(dir, exportedFile)
	switch _, err := os.Stat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%w: two controllers must not lead. If that one was never started, and never "+
		"will be, remove %s", errExported, name)
}
