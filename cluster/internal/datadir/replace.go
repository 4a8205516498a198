package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The content of a directory is replaced in three steps, so that a crash leaves the old
// content or the new one, also if the directory itself cannot be renamed (it may be the
// root of a volume):
//
//  1. The new content is written to building. A crash leaves that behind, and nothing has
//     changed.
//  2. building is renamed to decided. From here on the new content holds.
//  3. The next process that locks the directory, or goes on, moves the old content
//     aside, renames decided to entering, and moves its content in.
const (
	building = "replacement.tmp"
	decided  = "replacement"
	entering = "replacement.entering"
	// asideFile names, within the new content, the directory that gets the old one.
	asideFile = "aside"
)

// ownFiles are the parts of a directory that this package knows. The log and the snapshots
// come from its users.
var ownFiles = []string{
	serverIDFile, clusterIDFile, diskIDFile, logMadeFile, endedFile, knownDisksFile,
	progressFile, madeFile, formerFile, predecessorsFile,
}

// Replacement says how to replace what is in a directory.
type Replacement struct {
	// Aside is the name, in the directory, of the one that gets the old content.
	Aside string
	// Others are the names of the log and the snapshots.
	Others []string
	// Build writes the new content to a directory that is of the same disk. It need not
	// sync directories.
	Build func(*Dir) error
}

// mover moves the parts of a directory. Tests let it fail.
type mover struct {
	path   string
	rename func(from, to string) error
}

// Replace replaces the content of the directory by what Build writes. After an error the
// directory holds the old content or, as soon as it is locked again, the new one.
func (d *Dir) Replace(r Replacement) error {
	return d.replace(r, os.Rename)
}

func (d *Dir) replace(r Replacement, rename func(from, to string) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cluster: replace the content of %s: %w", d.path, err)
		}
	}()
	m := mover{d.path, rename}
	if _, err := os.Lstat(m.in(r.Aside)); err == nil {
		return fmt.Errorf("%s exists: %w", r.Aside, fs.ErrExist)
	}
	if err := os.RemoveAll(m.in(building)); err != nil {
		return err
	}
	if err := os.Mkdir(m.in(building), 0o700); err != nil {
		return err
	}
	made := &Dir{path: m.in(building)}
	if err := r.Build(made); err != nil {
		return errors.Join(err, os.RemoveAll(made.path))
	}
	names := append([]string{r.Aside}, r.Others...)
	if err := made.write(asideFile, strings.Join(names, "\n")); err != nil {
		return err
	}
	if err := syncTree(made.path); err != nil {
		return err
	}
	if err := m.move(building, decided); err != nil {
		return err
	}
	return m.finish()
}

func (m mover) in(name string) string { return filepath.Join(m.path, name) }

// move renames within the directory. The new name is on the disk when it returns.
func (m mover) move(from, to string) error {
	if err := m.rename(m.in(from), m.in(to)); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(m.in(from))), syncDir(filepath.Dir(m.in(to))))
}

// finish ends a replacement that was decided, and removes what one that was not has left.
// Each of its steps can be repeated.
func (m mover) finish() error {
	if err := os.RemoveAll(m.in(building)); err != nil {
		return err
	}
	if m.has(decided) {
		if err := m.moveAside(); err != nil {
			return err
		}
		if err := m.move(decided, entering); err != nil {
			return err
		}
	}
	if !m.has(entering) {
		return nil
	}
	parts, err := os.ReadDir(m.in(entering))
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p.Name() == asideFile {
			continue
		}
		if err := m.move(filepath.Join(entering, p.Name()), p.Name()); err != nil {
			return err
		}
	}
	return os.RemoveAll(m.in(entering))
}

// moveAside moves the old content to its place. What is not there was moved already.
func (m mover) moveAside() error {
	b, err := os.ReadFile(m.in(filepath.Join(decided, asideFile)))
	if err != nil {
		return err
	}
	names := strings.Split(strings.TrimSpace(string(b)), "\n")
	if err := os.MkdirAll(m.in(names[0]), 0o700); err != nil {
		return err
	}
	for _, name := range append(names[1:], ownFiles...) {
		if !m.has(name) {
			continue
		}
		if err := m.move(name, filepath.Join(names[0], name)); err != nil {
			return err
		}
	}
	return nil
}

func (m mover) has(name string) bool {
	_, err := os.Lstat(m.in(name))
	return err == nil
}

// syncTree syncs all directories of a tree. Its files are synced by who wrote them.
func syncTree(path string) error {
	return filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return syncDir(p)
	})
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
