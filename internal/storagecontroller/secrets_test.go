package storagecontroller

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quorate/internal/wait"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestSecretsComeFromFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	token, key := file("token", "eyJ.a.b\n"), file("key.pem", publicKeyPEM(t))
	t.Setenv("SAFEKEEPER_JWT_TOKEN_FILE", token)
	t.Setenv("CONTROL_PLANE_JWT_TOKEN", "of the environment")
	for _, args := range [][]string{
		{"--public-key-file", key}, {"--public-key", key}, {"--public-key=" + dir + "/key.pem"},
	} {
		args = append(args, "--listen=127.0.0.1:1", "--jwt-token-file", token,
			"--control-plane-jwt-token-file", token)
		cfg, err := mustParse(t, args...).config(quiet())
		if err != nil || cfg.Keys == nil || len(cfg.Secrets.States()) != 4 {
			t.Fatalf("%v: %v", args, err)
		}
		for i, got := range []func() string{
			cfg.Tokens.Pageserver, cfg.Tokens.Safekeeper, cfg.Tokens.ControlPlane,
		} {
			if got() != "eyJ.a.b" {
				t.Errorf("token %d is %q", i, got())
			}
		}
		if err := mustParse(t, append(args, "--control-plane-url=http://x")...).strict(); err != nil {
			t.Errorf("in strict mode: %v", err)
		}
	}
	cfg := configOf(t, "--safekeeper-jwt-token=given")
	if cfg.Secrets != nil || cfg.Keys != nil || cfg.Tokens.Pageserver != nil ||
		cfg.Tokens.Safekeeper() != "given" || cfg.Tokens.ControlPlane() != "of the environment" {
		t.Errorf("read as %+v", cfg.Tokens)
	}
	for _, bad := range [][]string{
		{"--jwt-token-file", token, "--jwt-token=a"}, {"--public-key", key, "--public-key-file", key},
	} {
		_, err := mustParse(t, append(bad, "--listen=:0")...).config(quiet())
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "give one of them") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for _, bad := range [][]string{
		{"--jwt-token-file", filepath.Join(dir, "none")}, {"--public-key", "/etc/none"}, {"--public-key", "/no/such/file"},
		{"--public-key-file", token}, {"--public-key", `""`}, {"--public-key", dir},
	} {
		if _, err := mustParse(t, append(bad, "--listen=:0")...).config(quiet()); err == nil ||
			!strings.Contains(err.Error(), strings.TrimSuffix(strings.TrimLeft(bad[0], "-"), "-file")) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	t.Setenv("SAFEKEEPER_JWT_TOKEN", "twice")
	if _, err := mustParse(t, "--listen=:0").config(quiet()); !errors.Is(err, errUsage) ||
		!strings.Contains(err.Error(), "SAFEKEEPER_JWT_TOKEN_FILE") {
		t.Errorf("both in the environment: %v", err)
	}
}

func TestFilesOfSecretsAreWatched(t *testing.T) {
	watchSecrets(t.Context(), nil)()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := configOf(t, "--jwt-token-file", file, "--ssl-cert-reload-period=10ms")
	stop := watchSecrets(t.Context(), cfg.Secrets)
	defer stop()
	if err := os.WriteFile(file, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	for cfg.Tokens.Pageserver() != "two" {
		if wait.Sleep(t.Context(), 10e6) != nil {
			t.Fatal("it stays as it was")
		}
	}
}

// What was given and is not used is told once, with a way out. What is used is not told.
func TestWhatIsNotUsedIsTold(t *testing.T) {
	for _, name := range []string{"DATABASE_URL", "PEER_JWT_TOKEN", "SENTRY_DSN"} {
		t.Setenv(name, "")
	}
	told := func(args ...string) string {
		var log bytes.Buffer
		tellIgnored(mustParse(t, args...), slog.New(slog.NewTextHandler(&log, nil)))
		return log.String()
	}
	for _, args := range [][]string{
		nil, {"--kick-secondary-downloads=true"}, {"--lazy-drains-fills", "true"},
		{"--anti-entropy-job-enact=false"}, {"--neon-region=a", "--heartbeat-interval=1s"},
	} {
		if text := told(args...); text != "" {
			t.Errorf("%v: %s", args, text)
		}
	}
	rows := map[string][]string{
		"--database-url":        {"--database-url=postgresql://x/y"},
		"--db-connect-timeout":  {"--db-connect-timeout", "9s"},
		"--lazy-drains-fills":   {"--lazy-drains-fills=false"},
		"--kick-secondary":      {"--kick-secondary-downloads=false"},
		"--peer-jwt-token":      {"--peer-jwt-token=a"},
		"--start-as-candidate":  {"--start-as-candidate", "--join=h:1"},
		"data directory of its": {"--start-as-candidate", "--data-dir=d"},
	}
	for _, i := range ignoredFlags {
		rows["--"+i.name] = []string{"--" + i.name}
		if i.value != "" {
			rows["--"+i.name] = append(rows["--"+i.name], "1h")
		}
	}
	for what, args := range rows {
		text := told(args...)
		if strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, what) ||
			!strings.Contains(text, "instead=") {
			t.Errorf("%v: %s", args, text)
		}
		text = told(append(args, "--neon-local-repo-dir=/r")...)
		if strings.Contains(text, "level=WARN") {
			t.Errorf("%v beside neon_local: %s", args, text)
		}
	}
	for _, name := range []string{"DATABASE_URL", "PEER_JWT_TOKEN", "SENTRY_DSN"} {
		t.Setenv(name, "x")
		if text := told(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, name) {
			t.Errorf("%s: %s", name, text)
		}
		t.Setenv(name, "")
	}
}

func TestADirectoryThatEndsWithItsContainerIsTold(t *testing.T) {
	for magic, want := range map[int64]string{0x794c7630: "overlay", 0x01021994: "tmpfs", 0xef53: ""} {
		if got := passingKind(magic); got != want {
			t.Errorf("%x is %q", magic, got)
		}
	}
	const memory = "/dev/shm"
	if passing(memory) != "tmpfs" {
		t.Skip(memory + " is none here")
	}
	var log bytes.Buffer
	to := slog.New(slog.NewTextHandler(&log, nil))
	tellDataDir(mustParse(t, "--neon-local-repo-dir=/r"), memory+"/a/b", to)
	if log.Len() != 0 {
		t.Errorf("beside neon_local: %s", log.String())
	}
	tellDataDir(mustParse(t), memory+"/a/b", to)
	if !strings.Contains(log.String(), "filesystem=tmpfs") ||
		!strings.Contains(log.String(), "--data-dir") {
		t.Errorf("it is not told: %s", log.String())
	}
}

// A candidate that cannot meet the instance that leads would serve an empty state.
func TestACandidateWithoutAWayToItsPredecessorIsRefused(t *testing.T) {
	empty, used := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(used, "raft.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	members := []string{"--members=a=127.0.0.1:1,b=127.0.0.1:2", "--server-id=a"}
	for _, c := range []struct {
		args    []string
		refused bool
	}{
		{[]string{"--data-dir", empty}, true},
		{[]string{"--data-dir", filepath.Join(empty, "none")}, true},
		{[]string{"--data-dir", empty, "--neon-local-repo-dir", empty}, true},
		{[]string{"--data-dir", used}, false},
		{[]string{"--neon-local-repo-dir", empty}, false},
		{append(members, "--data-dir", empty), false},
		{[]string{"--join=127.0.0.1:2", "--data-dir", empty}, false},
	} {
		args := append(c.args, "--listen=127.0.0.1:0", "--start-as-candidate")
		_, err := mustParse(t, args...).config(quiet())
		if c.refused != errors.Is(err, errUsage) || !c.refused && err != nil {
			t.Errorf("%v: %v", args, err)
		}
		if c.refused && !strings.Contains(err.Error(), "--members") {
			t.Errorf("the way out is not named: %v", err)
		}
	}
}

func TestACheckIsNotMadeAllTheTime(t *testing.T) {
	if cfg := configOf(t, "--consistency-check-interval", "1h"); cfg.CheckEvery.Hours() != 1 {
		t.Errorf("each %v", cfg.CheckEvery)
	}
	f := mustParse(t, "--listen=:0", "--consistency-check-interval=10ms")
	if err := f.check(); !errors.Is(err, errUsage) {
		t.Errorf("taken: %v", err)
	}
}
