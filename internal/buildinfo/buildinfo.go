// Package buildinfo says which build of this project a program is.
package buildinfo

import (
	"runtime/debug"
	"strings"
)

// These are set by the linker, where git is not asked by the build itself:
//
//	go build -ldflags '-X quorate/internal/buildinfo.version=v1.2.3
//	  -X quorate/internal/buildinfo.commit=… -X quorate/internal/buildinfo.date=…'
var version, commit, date string

// Build is what is known of a build. What is not known is empty.
type Build struct {
	Version string // such as v1.2.3; `dev` of a build that has none
	Commit  string // of git, with -dirty if files were changed
	Date    string // of the commit, RFC 3339
}

// Of is the build of this program.
func Of() Build {
	b := Build{version, commit, date}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.fill(info)
	}
	if b.Version == "" {
		b.Version = "dev"
	}
	return b
}

// fill adds what the go command has noted.
func (b *Build) fill(info *debug.BuildInfo) {
	if b.Version == "" && info.Main.Version != "(devel)" {
		b.Version = info.Main.Version
	}
	if b.Commit != "" {
		return
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	b.Commit, b.Date = settings["vcs.revision"], settings["vcs.time"]
	if b.Commit != "" && settings["vcs.modified"] == "true" {
		b.Commit += "-dirty"
	}
}

// Short is a line for lists, such as `v1.2.3 0123abcd0123`.
func (b Build) Short() string {
	commit, dirty := strings.CutSuffix(b.Commit, "-dirty")
	if len(commit) > 12 {
		commit = commit[:12]
	}
	if dirty {
		commit += "-dirty"
	}
	return Build{Version: b.Version, Commit: commit}.String()
}

// String is a line such as `v1.2.3 0123abcd 2026-12-01T00:00:00Z`.
func (b Build) String() string {
	return strings.Join(strings.Fields(b.Version+" "+b.Commit+" "+b.Date), " ")
}
