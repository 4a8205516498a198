package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// neonBin is a directory with neon_local. What begins with "ours" is a controller of ours.
type neonBin struct {
	t   *testing.T
	dir string
	out bytes.Buffer
}

func newNeonBin(t *testing.T) *neonBin {
	b := &neonBin{t: t, dir: t.TempDir()}
	b.write(neonLocalName, "neon_local")
	return b
}

func (b *neonBin) write(name, text string) string {
	b.t.Helper()
	name = filepath.Join(b.dir, name)
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		b.t.Fatal(err)
	}
	return name
}

func (b *neonBin) swap() *swap {
	b.t.Helper()
	s, err := newSwap(b.dir, &b.out)
	if err != nil {
		b.t.Fatal(err)
	}
	s.ours = func(path string) (bool, error) {
		text, _ := os.ReadFile(path)
		return bytes.HasPrefix(text, []byte("ours")), nil
	}
	return s
}

// want compares the directory with `name=text …`.
func (b *neonBin) want(files string) {
	b.t.Helper()
	list, err := os.ReadDir(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	var have []string
	for _, f := range list {
		text, _ := os.ReadFile(filepath.Join(b.dir, f.Name()))
		info, _ := f.Info()
		if info.Mode().Perm()&0o111 == 0 {
			b.t.Errorf("%s cannot be executed", f.Name())
		}
		if f.Name() != neonLocalName {
			have = append(have, f.Name()+"="+string(text))
		}
	}
	if got := strings.Join(have, " "); got != files {
		b.t.Errorf("there is %s\nwant %s", got, files)
	}
}

func TestTheControllerIsPutBesideNeonLocalAndTakenAway(t *testing.T) {
	b := newNeonBin(t)
	other := &neonBin{t: t, dir: t.TempDir()}
	first, second := other.write("first", "ours 1"), other.write("second", "ours 2")
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(b.swap().install(first)) // none was there
	b.want("storage_controller=ours 1")
	do(b.swap().undo())
	b.want("")
	do(b.swap().undo())
	b.write(controllerName, "neon's")
	do(b.swap().install(first))
	b.want("storage_controller=ours 1 storage_controller.neon=neon's")
	do(b.swap().install(second))
	b.want("storage_controller=ours 2 storage_controller.neon=neon's")
	b.write(controllerName, "neon's, built again")
	do(b.swap().install(first))
	b.want("storage_controller=ours 1 storage_controller.neon=neon's, built again")
	do(b.swap().undo())
	b.want("storage_controller=neon's, built again")
	do(b.swap().undo())
	b.want("storage_controller=neon's, built again")
	for _, said := range []string{"kept", "put", "back at", "nothing to undo", "neon_local init"} {
		if !strings.Contains(b.out.String(), said) {
			t.Errorf("it did not say %q:\n%s", said, b.out.String())
		}
	}
}

func TestNothingIsPutWhereItWouldNotBeStarted(t *testing.T) {
	b := newNeonBin(t)
	if err := b.swap().install(b.write("strange", "a shell script")); err == nil {
		t.Error("a strange program was put there")
	}
	_ = os.Remove(filepath.Join(b.dir, "strange"))
	b.want("")
	for _, dir := range []string{"", t.TempDir()} {
		if _, err := newSwap(dir, nil); err == nil || !strings.Contains(err.Error(), "neon_local") {
			t.Errorf("%q: %v", dir, err)
		}
	}
	linked := t.TempDir()
	if err := os.Symlink(filepath.Join(b.dir, neonLocalName),
		filepath.Join(linked, neonLocalName)); err != nil {
		t.Fatal(err)
	}
	s, err := newSwap(linked, nil)
	if err != nil || filepath.Dir(s.target) == linked {
		t.Errorf("beside a link: %v, %v", s, err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{self, filepath.Join(linked, "none"), filepath.Join(b.dir, neonLocalName)} {
		if ours, err := isOurs(path); ours || err != nil {
			t.Errorf("%s: %v, %v", path, ours, err)
		}
	}
}

func TestNeonLocalCommands(t *testing.T) {
	for _, args := range [][]string{
		{"neon-local", "install", "--neon-bin="}, {"neon-local", "undo", "--neon-bin", t.TempDir()},
		{"neon-local", "install", "--neon-bin", newNeonBin(t).dir, "--controller", "/none"},
	} {
		if run(args) != 1 {
			t.Errorf("%v is done", args)
		}
	}
	if run([]string{"neon-local", "undo", "--neon-bin", newNeonBin(t).dir}) != 0 {
		t.Error("nothing to undo is an error")
	}
}
