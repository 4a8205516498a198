// Package release makes the artifacts of a release from one commit: static binaries, a
// list of what is in them, an image, packages, and a chart for Kubernetes. The same commit
// gives the same bytes. It is a module of its own: what it needs is in no binary.
package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
)

// Arches are the architectures of a release, in the words of Go.
var Arches = []string{"amd64", "arm64"}

// Commands are the programs of a release.
var Commands = []string{"storage_controller", "storcon_cli"}

// Source is a clean checkout of one commit.
type Source struct {
	Dir     string
	Commit  string
	Date    time.Time // of the commit
	Version string    // without a v, such as 0.4.2 or 0.0.0-20261201030405
}

// Checkout puts HEAD of the repository into dir, which must not exist.
func Checkout(ctx context.Context, repo, dir string) (Source, error) {
	if _, err := run(ctx, ".", "git", "clone", "-q", "--shared", repo, dir); err != nil {
		return Source{}, err
	}
	s := Source{Dir: dir}
	out, err := run(ctx, dir, "git", "show", "-s", "--format=%H %ct", "HEAD")
	if err != nil {
		return s, err
	}
	commit, seconds, _ := strings.Cut(out, " ")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return s, fmt.Errorf("the date of commit %s: %w", commit, err)
	}
	s.Commit, s.Date = commit, time.Unix(unix, 0).UTC()
	s.Version = "0.0.0-" + s.Date.Format("20060102150405")
	tag, err := run(ctx, dir, "git", "describe", "--tags", "--exact-match", "--match", "v*")
	if err == nil {
		s.Version = strings.TrimPrefix(tag, "v")
	}
	return s, nil
}

// run runs a program, and returns what it prints, without the space around it.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	return runWith(ctx, dir, nil, name, args...)
}

func runWith(
	ctx context.Context, dir string, env []string, name string, args ...string,
) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	c.Dir, c.Stderr, c.Env = dir, &stderr, append(os.Environ(), env...)
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err,
			bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), err
}

// Binary is where the program of an architecture is, below the directory of a release.
func Binary(out, arch, command string) string { return filepath.Join(out, "linux-"+arch, command) }

// Build makes the static binaries of one architecture.
func (s Source) Build(ctx context.Context, out, arch string) error {
	for _, command := range Commands {
		file, err := filepath.Abs(Binary(out, arch, command))
		if err != nil {
			return err
		}
		env := []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOFLAGS=", "GOWORK=off"}
		if _, err := runWith(ctx, s.Dir, env, "go", "build", "-trimpath", "-buildvcs=true",
			"-ldflags=-s -w", "-o", file, "./cmd/"+command); err != nil {
			return err
		}
	}
	return nil
}

// Make makes everything, and SHA256SUMS of it.
func (s Source) Make(ctx context.Context, out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, arch := range Arches {
		if err := s.Build(ctx, out, arch); err != nil {
			return err
		}
		if err := s.Packages(out, arch); err != nil {
			return err
		}
	}
	for _, step := range []func(string) error{s.BillOfMaterials, s.Image, s.Chart} {
		if err := step(out); err != nil {
			return err
		}
	}
	return sums(out)
}

// Chart packs the chart, with the version of the release.
func (s Source) Chart(out string) error {
	c, err := loader.LoadDir(filepath.Join(s.Dir, "internal/release/chart"))
	if err != nil {
		return err
	}
	c.Metadata.Version, c.Metadata.AppVersion = s.Version, s.Version
	c.ModTime = s.Date
	for _, files := range [][]*common.File{c.Templates, c.Files, c.Raw} {
		for _, f := range files {
			f.ModTime = s.Date
		}
	}
	c.SchemaModTime = s.Date
	_, err = chartutil.Save(c, out)
	return err
}

// sums writes the hashes of all files of a release.
func sums(out string) error {
	var text strings.Builder
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "SHA256SUMS" {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(out, path)
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(content), name)
		return err
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "SHA256SUMS"), []byte(text.String()), 0o644)
}
