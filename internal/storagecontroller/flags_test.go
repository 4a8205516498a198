package storagecontroller

import (
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"quorate/reconciler"
)

func parse(t *testing.T, args ...string) (*flags, error) {
	t.Helper()
	f := &flags{}
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	f.register(fs)
	return f, fs.Parse(args)
}

func mustParse(t *testing.T, args ...string) *flags {
	t.Helper()
	f, err := parse(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// neonLocal is everything that neon_local may pass.
var neonLocal = []string{
	"--dev", "--database-url", "postgresql://localhost:1235/storage_controller",
	"--max-offline-interval", "10s",
	"--max-warming-up-interval", "1m 30s", "--heartbeat-interval", "100ms", "--address-for-peers",
	"http://127.0.0.1:1234/",
	"--listen", "127.0.0.1:1234", "--start-as-candidate", "--use-https-pageserver-api",
	"--use-https-safekeeper-api",
	"--use-local-compute-notifications", "--kick-secondary-downloads=true",
	"--ssl-ca-file=/r/rootCA.crt", "--jwt-token=a",
	"--peer-jwt-token=b", "--safekeeper-jwt-token=c", "--control-plane-url=http://127.0.0.1:1/",
	"--split-threshold=1000",
	"--max-split-shards=8", "--initial-split-threshold=10", "--initial-split-shards=2",
	"--max-secondary-lag-bytes=9",
	"--long-reconcile-threshold=2m", "--neon-local-repo-dir=/r", "--timelines-onto-safekeepers",
	"--timeline-safekeeper-count=1",
	"--shard-split-request-timeout=30s", "--handle-ps-local-disk-loss",
}

func TestFlagsOfNeonLocalAreTaken(t *testing.T) {
	f := mustParse(t, neonLocal...)
	cfg, err := f.config(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := cfg.Reconciler
	if r.MaxOffline != 10*time.Second || r.MaxWarmingUp != 90*time.Second ||
		r.HeartbeatInterval != 100*time.Millisecond {
		t.Errorf("intervals are %v, %v and %v", r.MaxOffline, r.MaxWarmingUp, r.HeartbeatInterval)
	}
	if r.Vanished == 0 || !r.RelistInDoubt || mustParse(t).reconciler().Vanished != 0 {
		t.Errorf("what is changed by hand is left for %v", r.Vanished)
	}
	if cfg.HTTP.Listen != "127.0.0.1:1234" || cfg.HTTP.Address != "http://127.0.0.1:1234/" ||
		cfg.PageserverScheme != "https" ||
		!cfg.DiskLoss || cfg.Tokens.Pageserver() != "a" || cfg.CAFile != "/r/rootCA.crt" {
		t.Errorf("read as %+v", cfg)
	}
	if want := filepath.Join("/r", "storage_controller_raft"); cfg.Cluster.DataDir != want {
		t.Errorf("data directory %s, want %s", cfg.Cluster.DataDir, want)
	}
}

func TestInstancesOfOneRepoTakeTurnsAtOneDirectory(t *testing.T) {
	one := mustParse(t, "--listen", "127.0.0.1:1", "--neon-local-repo-dir", "/r",
		"--address-for-peers", "http://127.0.0.1:1/")
	two := mustParse(t, "--listen", "127.0.0.1:2", "--neon-local-repo-dir", "/r",
		"--start-as-candidate")
	if one.dataDir() != two.dataDir() || !one.shared() || !two.shared() || one.candidate ||
		!two.candidate {
		t.Errorf("%s and %s", one.dataDir(), two.dataDir())
	}
	for _, own := range [][]string{
		{"--members=a=127.0.0.1:1", "--server-id=a"}, {"--bootstrap-expect=3"},
		{"--join=127.0.0.1:1"}, {"--data-dir=/d"},
	} {
		f := mustParse(t, append(own, "--neon-local-repo-dir", "/r", "--listen=127.0.0.1:3")...)
		if f.shared() || f.raft.dataDir == "" && f.dataDir() == one.dataDir() {
			t.Errorf("with %v the directory is shared", own)
		}
	}
	if mustParse(t, "--listen", "127.0.0.1:1").shared() {
		t.Error("without an environment the directory is shared")
	}
}

// What the chart of the existing controller may pass for full disks is taken; what would
// move shards forth and back is refused.
func TestFlagsAboutFullDisks(t *testing.T) {
	const name = "--pageserver-auto-migration-"
	cfg := configOf(t, name+"enabled", name+"max-migrations-per-destination", "3",
		name+"disk-utilization-source-min", "85", name+"disk-actual-usage-source-min", "60",
		name+"disk-utilization-source-target", "75",
		name+"disk-utilization-destination-max", "72.5", name+"max-shard-size-limit", "9")
	if want := (reconciler.Disks{
		Enabled: true, SourceMin: 85, UsageMin: 60, Target: 75, DestinationMax: 72.5,
		PerDestination: 3, Largest: 9,
	}); cfg.Reconciler.Disks != want {
		t.Errorf("read as %+v", cfg.Reconciler.Disks)
	}
	for _, args := range [][]string{
		{name + "enabled", name + "disk-utilization-source-target=81"},
		{name + "enabled", name + "disk-utilization-destination-max=81"},
		{name + "disk-utilization-source-min=-1"},
	} {
		if err := mustParse(t, append(args, "--listen=127.0.0.1:1")...).check(); !errors.Is(err,
			errUsage) {
			t.Errorf("%v is taken: %v", args, err)
		}
	}
}

func TestSwitchWithValueWantsOne(t *testing.T) {
	if _, err := parse(t, "--kick-secondary-downloads=maybe"); !errors.Is(err, errNotBool) {
		t.Errorf("took a bad value: %v", err)
	}
	mustParse(t, "--kick-secondary-downloads", "false", "--dev")
}

func TestSecretsComeFromTheEnvironment(t *testing.T) {
	t.Setenv("PAGESERVER_JWT_TOKEN", "from the environment")
	if got := mustParse(t).jwtToken; got != "from the environment" {
		t.Errorf("token is %q", got)
	}
	if got := mustParse(t, "--jwt-token", "given").jwtToken; got != "given" {
		t.Errorf("the environment wins: %q", got)
	}
}

func TestStrictModeWantsEverySecret(t *testing.T) {
	full := []string{
		"--public-key=k", "--jwt-token=a", "--control-plane-jwt-token=b",
		"--safekeeper-jwt-token=c", "--control-plane-url=http://x",
	}
	if err := mustParse(t, full...).strict(); err != nil {
		t.Errorf("complete and refused: %v", err)
	}
	for i := range full {
		less := append(append([]string{}, full[:i]...), full[i+1:]...)
		if mustParse(t, less...).strict() == nil {
			t.Errorf("taken without %s", full[i])
		}
	}
	for _, bad := range []string{
		"--use-local-compute-notifications", "--timeline-safekeeper-count=2",
	} {
		if mustParse(t, append([]string{bad}, full...)...).strict() == nil {
			t.Errorf("taken with %s", bad)
		}
	}
}

func TestMistakesAreUsageErrors(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, args := range [][]string{
		{}, {"--listen=:0", "--members=a"},
		{"--listen=:0", "--members=a=h:1,a=h:2", "--server-id=a"},
		{"--listen=:0", "--members=a=h:1,b=h:1", "--server-id=a"},
		{"--listen=:0", "--members=a=h:1", "--server-id=b"},
		{"--listen=:0", "--address-for-peers=nowhere"}, {"--listen=:0", "--gossip-key=%"},
		{"--listen=:0", "--raft-tls-cert=x"}, {"--listen=:0", "--tenant-rate-limit=0"},
		{"--listen=:0", "--reconciler-concurrency=-1"}, {"--listen=:0", "--bootstrap-expect=-1"},
		{"--listen=:0", "--priority-reconciler-concurrency=-1"},
		{"--listen=:0", "--safekeeper-reconciler-concurrency=-1"},
	} {
		if _, err := mustParse(t, args...).config(log); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestMemberListensWhereTheListSays(t *testing.T) {
	f := mustParse(t, "--listen=127.0.0.1:0", "--members=a=10.0.0.1:7,b=10.0.0.2:7",
		"--server-id=b", "--data-dir=/d")
	cfg, err := f.config(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c := cfg.Cluster
	if c.RaftListen != "10.0.0.2:7" || c.Advertise != "10.0.0.2:7" || len(c.Members) != 2 ||
		c.DataDir != "/d" {
		t.Errorf("read as %+v", c)
	}
}

func FuzzParseMembers(f *testing.F) {
	for _, s := range []string{"", "a=h:1", "a=h:1,b=[::1]:2", "=", "a=h:1,", ",", "a=b=c:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		members, err := parseMembers(s)
		if err != nil && !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", s, err)
		}
		for _, m := range members {
			if m.ID == "" || m.RaftAddr == "" {
				t.Errorf("%q makes %+v", s, m)
			}
		}
	})
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		want int
		args []string
	}{
		{exitUsage, nil}, {exitUsage, []string{"--no-such-flag"}}, {exitUsage, []string{"stray"}},
		{exitUsage, []string{"members"}}, {exitUsage, []string{"snapshot", "save"}},
		{0, []string{"--version"}}, {0, []string{"-V"}},
		{exitError, []string{"--listen=127.0.0.1:0"}}, // not --dev, no secrets
		{exitError, []string{"members", "list", "--data-dir", t.TempDir()}},
	} {
		if got := Run(c.args, Seams{}); got != c.want {
			t.Errorf("%q: exit code %d, want %d", c.args, got, c.want)
		}
	}
}
