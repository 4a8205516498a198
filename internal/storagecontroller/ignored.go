package storagecontroller

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// ignoredFlag is a flag of the existing controller that has no meaning here.
type ignoredFlag struct {
	name, value string // value: what it takes; empty: nothing, it is a switch
	instead     string // what to do
}

const (
	noBalancer = "nothing: this program calls no load balancer manager; take the flag away"
	moveIn     = "the state is in --data-dir. To move in what a database has: stop the other " +
		"controller, and run `storage_controller import`; then take the variable or flag away"
)

// ignoredFlags are those of all releases of the existing controller and of its chart.
var ignoredFlags = []ignoredFlag{
	{"lbm-management-url", "URL", noBalancer},
	{"lbm-storage-url", "URL", noBalancer},
	{"anti-entropy-job-interval", "duration", noBalancer},
	{"anti-entropy-job-delay", "duration", noBalancer},
	{"anti-entropy-job-enact", "", noBalancer},
	{
		"chaos-safekeeper-interval", "duration",
		"move timelines by `storcon_cli timeline-safekeeper-migrate`; --chaos-interval moves shards only",
	},
	{
		"check-timeline-digest-across-small-shard-splits", "",
		"compare the data before and after a split by a test of your own",
	},
	{
		"enable-location-updates", "",
		"nothing: compute is told by --control-plane-url; take the flag away",
	},
}

// registerIgnored takes the flags that launchers pass and this program needs not. It keeps
// its state itself, and its leader is elected.
func registerIgnored(f *flags, fs *pflag.FlagSet) {
	const note = " (accepted, not used: "
	fs.StringVar(&f.databaseURL, "database-url", os.Getenv("DATABASE_URL"),
		"Postgres `URL`"+note+"the state is in --data-dir; env DATABASE_URL)")
	fs.Lookup("database-url").DefValue = ""
	durationVar(fs, &f.dbTimeout, "db-connect-timeout", defaultDBTimeout,
		"time to reach the database"+note+"there is none)")
	fs.Var(&f.kick, "kick-secondary-downloads",
		"accepted; a destination that is not warm is always told to download")
	fs.Var(&f.lazy, "lazy-drains-fills",
		"accepted; pageservers are always let attach lazily, so that a shard in use comes first")
	for _, i := range ignoredFlags {
		if i.value == "" {
			fs.Bool(i.name, false, "accepted, not used")
		} else {
			fs.String(i.name, "", "`"+i.value+"`; accepted, not used")
		}
	}
}

// remark is what an operator should know of something that was given and is not used.
type remark struct{ what, instead string }

// ignored are all flags and variables that were given and are not used.
func ignored(f *flags) (all []remark) {
	add := func(given bool, what, instead string) {
		if given {
			all = append(all, remark{what, instead})
		}
	}
	set := f.set.Changed
	switch {
	case set("database-url"):
		add(true, "--database-url", moveIn)
	default:
		add(f.databaseURL != "", "DATABASE_URL", moveIn)
	}
	add(set("db-connect-timeout"), "--db-connect-timeout", "there is no database to reach")
	add(set("kick-secondary-downloads") && !f.kick.value, "--kick-secondary-downloads=false",
		"nothing: a destination that is not warm is always told to download")
	add(set("lazy-drains-fills") && !f.lazy.value, "--lazy-drains-fills=false",
		"nothing: pageservers are always let attach lazily; what is in use comes first")
	add(f.peer().isGiven(), "--peer-jwt-token (PEER_JWT_TOKEN)",
		"requests are forwarded with the client's own token, and replicas prove who they are by "+
			"--raft-tls-cert, --raft-tls-key and --raft-tls-ca")
	add(f.candidate && f.many(), "--start-as-candidate",
		"members of a cluster elect their leader; take the flag away")
	add(f.candidate && !f.many() && !f.shared(), "--start-as-candidate",
		"a replica with a data directory of its own asks nobody to step down. For a restart "+
			"without a gap run three (--members, docs/operating.md), and take the flag away")
	for _, i := range ignoredFlags {
		add(set(i.name) && f.set.Lookup(i.name).Value.String() != "false", "--"+i.name, i.instead)
	}
	add(os.Getenv("SENTRY_DSN") != "", "SENTRY_DSN",
		"errors and crashes are in the log and on standard error only; collect those")
	add(os.Getenv("STORCON_DB_CERT_CHECKS") != "", "STORCON_DB_CERT_CHECKS",
		"there is no database to reach")
	return all
}

// tellIgnored says once what is not used. Under neon_local that is no reason to warn: it
// always passes some of it, and its tests take warnings for failures.
func tellIgnored(f *flags, log *slog.Logger) {
	level := slog.LevelWarn
	if f.repoDir != "" {
		level = slog.LevelInfo
	}
	for _, r := range ignored(f) {
		log.Log(context.Background(), level, "Not used: "+r.what, "instead", r.instead)
	}
}

// tellDataDir warns of a directory that ends with its container.
func tellDataDir(f *flags, dir string, log *slog.Logger) {
	kind := passing(dir)
	if kind == "" || f.repoDir != "" {
		return // the line about the start names the directory
	}
	log.Warn("The data directory may end with its container, and with it the state",
		"data_dir", dir, "filesystem", kind,
		"way_out", "mount a volume, and name a directory on it with --data-dir")
}

// passing names the filesystem of a directory if that is one of those that containers have
// for what they do not keep; else it is empty.
func passing(dir string) string {
	var fs unix.Statfs_t
	for unix.Statfs(dir, &fs) != nil { // it is not there yet
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
	return passingKind(int64(fs.Type)) //nolint:unconvert // its type differs by architecture
}

func passingKind(magic int64) string {
	switch magic {
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	}
	return ""
}
