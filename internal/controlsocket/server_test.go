package controlsocket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/internal/clusteradmin"
)

// text is a state machine whose state is a text.
type text string

func (text) Apply(batch []cluster.Entry) []any { return make([]any, len(batch)) }
func (s text) Snapshot() (io.WriterTo, error)  { return bytes.NewBufferString(string(s)), nil }
func (text) Restore(r io.Reader) error         { _, err := io.Copy(io.Discard, r); return err }

// shortDir is a directory whose path a socket can have, which t.TempDir may not be.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "quorate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// controlled starts a server of a cluster, and the control socket in its directory.
func controlled(t *testing.T, cfg cluster.Config, more ...Route) (*cluster.Cluster, *Client) {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = shortDir(t)
	}
	cfg.RaftListen = "127.0.0.1:0"
	c, err := cluster.Open(t.Context(), cfg, text("the state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	// A process that died has left its socket.
	if err := os.WriteFile(filepath.Join(cfg.DataDir, fileName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(Options{
		Dir: cfg.DataDir, Cluster: c, Logger: slog.New(slog.DiscardHandler),
		Members: clusteradmin.New(clusteradmin.Options{Cluster: c}),
	}, more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return c, Dial(cfg.DataDir)
}

// leading is a cluster of one, which leads.
func leading(t *testing.T, more ...Route) (*cluster.Cluster, *Client) {
	t.Helper()
	c, client := controlled(t, cluster.Config{ID: "one"}, more...)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.ReadBarrier(ctx); err != nil {
		t.Fatal(err)
	}
	return c, client
}

func TestCommandsReachTheReplica(t *testing.T) {
	_, client := leading(t)
	view, err := client.Members(t.Context())
	if err != nil || len(view.Members) != 1 || view.Members[0].ID != "one" ||
		view.Members[0].Role != neon.RoleLeader || !view.Current {
		t.Errorf("members %+v, %v", view, err)
	}
	var saved bytes.Buffer
	if _, err := client.Snapshot(t.Context(), cluster.SaveNewest,
		&saved); err != nil || saved.Len() == 0 {
		t.Errorf("a snapshot of %d bytes, %v", saved.Len(), err)
	}
}

func TestRefusalsComeWithTheirReason(t *testing.T) {
	_, client := leading(t)
	_, err := client.AddMember(t.Context(), neon.MemberAdd{ID: "two"})
	if err == nil || !strings.Contains(err.Error(), "where is two?") {
		t.Errorf("a member without an address: %v", err)
	}
	_, err = client.AddMember(t.Context(), neon.MemberAdd{ID: "two", RaftAddr: "127.0.0.1:1"})
	if err == nil || !strings.Contains(err.Error(), "--server-id two --raft-listen 127.0.0.1:1") {
		t.Errorf("a member that does not run: %v", err)
	}
	if err := client.RemoveMember(t.Context(), "one"); err == nil ||
		!strings.Contains(err.Error(), "the last voter") {
		t.Errorf("removing the last voter: %v", err)
	}
	_, err = client.ReplaceMember(t.Context(), "two", neon.MemberAdd{ID: "3", RaftAddr: "h:1"})
	if err == nil || !strings.Contains(err.Error(), "the members are one") {
		t.Errorf("replacing a stranger: %v", err)
	}
	if err := client.TransferLeadership(t.Context(), "two"); err == nil || err.Error() == "" {
		t.Errorf("handing over to a stranger: %v", err)
	}
}

func TestReplicaThatDoesNotLeadSaysSo(t *testing.T) {
	_, client := controlled(t, cluster.Config{ID: "one", Members: []cluster.Member{
		{ID: "one", RaftAddr: "127.0.0.1:1"}, {ID: "two", RaftAddr: "127.0.0.1:2"},
	}})
	for what, err := range map[string]error{
		"remove":   client.RemoveMember(t.Context(), "two"),
		"transfer": client.TransferLeadership(t.Context(), ""),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "this replica does not lead") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestFurtherCommandsAreServed(t *testing.T) {
	_, client := leading(t, Route{"GET /snapshot/more", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `"more"`)
	}})
	var got string
	if err := client.call(t.Context(), http.MethodGet, "/snapshot/more", nil,
		&got); err != nil || got != "more" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWithoutAReplicaTheErrorSaysSo(t *testing.T) {
	client := Dial(shortDir(t))
	_, err := client.Members(t.Context())
	_, saveErr := client.Snapshot(t.Context(), cluster.SaveNewest, io.Discard)
	for what, err := range map[string]error{
		"members": err, "snapshot": saveErr,
	} {
		if err == nil || !errors.Is(err, os.ErrNotExist) ||
			!strings.HasPrefix(err.Error(), "no replica runs on this data directory") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// longDir is a directory whose path has the number of bytes.
func longDir(t *testing.T, length int) string {
	t.Helper()
	dir := shortDir(t)
	for len(dir) < length {
		left := length - len(dir) - 1
		if left > 60 {
			left = 50
		}
		dir = filepath.Join(dir, strings.Repeat("d", left))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil || len(dir) != length {
		t.Fatalf("%d bytes, %v", len(dir), err)
	}
	return dir
}

func TestDirectoryWithALongPathHasASocket(t *testing.T) {
	c, client := controlled(t, cluster.Config{ID: "one", DataDir: longDir(t, 177)})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.ReadBarrier(ctx); err != nil {
		t.Fatal(err)
	}
	view, err := client.Members(t.Context())
	if err != nil || len(view.Members) != 1 || view.Members[0].ID != "one" {
		t.Errorf("members %+v, %v", view, err)
	}
	var saved bytes.Buffer
	if _, err := client.Snapshot(t.Context(), cluster.SaveNewest,
		&saved); err != nil || saved.Len() == 0 {
		t.Errorf("a snapshot of %d bytes, %v", saved.Len(), err)
	}
}

func TestSocketGoesWithTheServerWhateverItsPath(t *testing.T) {
	for _, length := range []int{60, longestPath - len(fileName), longestPath, 177} {
		dir := longDir(t, length)
		s, err := Listen(Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatalf("%d bytes: %v", length, err)
		}
		if _, err := os.Stat(filepath.Join(dir, fileName)); err != nil {
			t.Errorf("%d bytes: %v", length, err)
		}
		s.Close()
		if _, err := os.Stat(filepath.Join(dir, fileName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%d bytes: after the end %v", length, err)
		}
		_, err = Dial(dir).Members(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "no replica runs") {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
}

func TestSystemWithoutPathsToOpenDirectories(t *testing.T) {
	defer func(was string) { openDirs = was }(openDirs)
	openDirs = shortDir(t)
	dir := longDir(t, 177)
	s, err := Listen(Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if s != nil || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	s.Close()
	_, err = Dial(dir).Members(t.Context())
	if !errors.Is(err, errPathTooLong) || strings.Contains(err.Error(), "no replica runs") {
		t.Errorf("got %v", err)
	}
}

func TestReplicaThatDoesNotAnswerIsNotSaidToBeAbsent(t *testing.T) {
	held := make(chan struct{})
	_, client := leading(t, Route{"GET /held", func(_ http.ResponseWriter, r *http.Request) {
		close(held)
		<-r.Context().Done()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-held; cancel() }()
	err := client.call(ctx, http.MethodGet, "/held", nil, nil)
	if err == nil || strings.Contains(err.Error(), "no replica runs") ||
		!errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSocketOfAnotherUserSaysSo(t *testing.T) {
	err := unreachable("/d", &net.OpError{Err: syscall.EACCES})
	if strings.Contains(err.Error(), "no replica runs") ||
		!strings.Contains(err.Error(), "another user") {
		t.Errorf("got %v", err)
	}
}
