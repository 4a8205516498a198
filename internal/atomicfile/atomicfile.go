// Package atomicfile replaces files so that a crash leaves the old or the new
// content, and never a part of it.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Write replaces the file with what fill writes. The file is private to its owner.
//
// When Write returns nil the new content is on the disk, under its name: renameio
// syncs the file, and Write syncs the directory. After an error of fill or of the
// disk the old content is there.
func Write(name string, fill func(io.Writer) error) (err error) {
	return write(name, fill, func(f *renameio.PendingFile) error {
		if err := f.CloseAtomicallyReplace(); err != nil {
			return err
		}
		return syncDir(filepath.Dir(name))
	})
}

// Rehearse does what Write does until the file would be replaced, and leaves nothing.
func Rehearse(name string, fill func(io.Writer) error) error {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", name)
	}
	return write(name, fill, func(f *renameio.PendingFile) error { return f.Sync() })
}

func write(
	name string, fill func(io.Writer) error, end func(*renameio.PendingFile) error,
) (err error) {
	dir := filepath.Dir(name)
	f, err := renameio.NewPendingFile(name, renameio.WithTempDir(dir),
		renameio.WithPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Cleanup()) }()
	if err := fill(f); err != nil {
		return err
	}
	return end(f)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
