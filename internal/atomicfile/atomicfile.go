// Package atomicfile replaces files so that a crash leaves the old or the new
// content, and never a part of it.
package atomicfile

import (
	"errors"
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
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
