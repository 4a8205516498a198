package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/cluster/clustertest"
	"quorate/fsm"
	"quorate/internal/controlsocket"
	"quorate/internal/serve"
)

// running starts a lone replica and ends it with the test.
func running(t *testing.T, cfg Config) (a *App, stop func() error) {
	t.Helper()
	cfg.HTTP.Listen, cfg.Cluster.RaftListen = "127.0.0.1:0", "127.0.0.1:0"
	if cfg.Cluster.DataDir == "" {
		cfg.Cluster.Disk = clustertest.NewMemoryDisk()
	}
	a, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	await(t, "a ready replica", func() bool { return get(a.Address()+"ready") == http.StatusOK })
	return a, stop
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within ten seconds", what)
		}
	}
}

func get(url string) int {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func register(t *testing.T, a *App, id neon.NodeID) {
	t.Helper()
	if _, err := a.Replica().Propose(t.Context(), fsm.RequestID{}, registration(id)); err != nil {
		t.Fatal(err)
	}
}

func registration(id neon.NodeID) fsm.Command {
	return fsm.RegisterNode{
		ID:   id,
		Addr: fsm.NodeAddr{HTTPHost: "127.0.0.1", HTTPPort: 1, PGHost: "127.0.0.1", PGPort: 1},
		AZ:   neon.MakeAZ("a"),
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	a, stop := running(t, Config{Cluster: cluster.Config{DataDir: dir}})
	register(t, a, 7)
	id, server := a.Replica().State().ClusterID, a.Cluster().ID()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	a, _ = running(t, Config{Cluster: cluster.Config{DataDir: dir}})
	s, err := a.Replica().ReadState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Node(7); !ok || s.ClusterID != id || a.Cluster().ID() != server {
		t.Errorf("node known: %v, cluster %s and %s, server %s and %s", ok, s.ClusterID, id,
			a.Cluster().ID(), server)
	}
}

func TestRefusalComesAsErrorAndResult(t *testing.T) {
	a, _ := running(t, Config{})
	r, err := a.Replica().Propose(t.Context(), fsm.RequestID{}, fsm.RegisterNode{})
	if neon.CodeOf(err) != neon.BadRequest || r.Err == nil || r.Index == 0 {
		t.Errorf("error %v, result %+v", err, r)
	}
}

func TestErrorsOfTheLogTellWhatHappened(t *testing.T) {
	for err, want := range map[error]neon.Code{
		cluster.ErrNotLeader: neon.NotLeader, cluster.ErrOutcomeUnknown: neon.OutcomeUnknown,
		cluster.ErrClosed:   neon.ShuttingDown,
		cluster.ErrTooLarge: neon.BadRequest, cluster.ErrOverloaded: neon.Unavailable,
		io.EOF: neon.Unavailable,
	} {
		if got := proposeError(err); neon.CodeOf(got) != want || !errors.Is(got, err) {
			t.Errorf("%v became %v (%s)", err, got, neon.CodeOf(got))
		}
	}
	for err, want := range map[error]neon.Code{
		cluster.ErrNotLeader: neon.NotLeader, cluster.ErrPeerUnreachable: neon.NotLeader,
		cluster.ErrClosed: neon.ShuttingDown, io.EOF: neon.Unavailable,
	} {
		if got := readError(err); neon.CodeOf(got) != want {
			t.Errorf("a read's %v became %s", err, neon.CodeOf(got))
		}
	}
}

func TestGrantsAreForeseen(t *testing.T) {
	var early []fsm.Grant
	var a *App
	seen := make(chan bool, 100)
	granted := func(g fsm.Grant) {
		sh, _ := a.Replica().State().Shard(g.Shard)
		seen <- sh.Generation < g.Generation
		early = append(early, g)
	}
	a, _ = running(t, Config{Granted: granted})
	register(t, a, 1)
	tenant := neon.TenantID{1}
	propose := func(c fsm.Command) {
		t.Helper()
		if _, err := a.Replica().Propose(t.Context(), fsm.RequestID{}, c); err != nil {
			t.Fatal(err)
		}
	}
	propose(fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: 1, To: neon.NodeActive}}})
	propose(fsm.CreateTenant{
		ID: tenant, Stripe: 8, Policy: neon.Attached(0), Scheduling: neon.ShardPause,
		Shards: []fsm.NewShard{{Attached: 1}},
	})
	propose(fsm.IssueGenerations{
		Items: []fsm.Issue{{Shard: neon.ShardID{Tenant: tenant}, Node: 1}},
	})
	if !<-seen {
		t.Error("the state held the generation before the grant was told")
	}
}

// Commands that share an entry of the log have one index: a caller that asks for each index
// once must find what all of them did.
func TestStatesAreForeseenWithAllThatTheirEntryHolds(t *testing.T) {
	nodes := make(map[uint64]int)
	m := &machine{store: fsm.NewStore(), foreseen: func(s *fsm.State) {
		if _, ok := nodes[s.Index]; ok {
			t.Errorf("entry %d was told twice", s.Index)
		}
		nodes[s.Index] = len(slices.Collect(s.Nodes()))
	}}
	var batch []cluster.Entry
	for i, index := range []uint64{5, 5, 7} {
		data, err := fsm.Encode(fsm.RequestID{}, registration(neon.NodeID(i+1)))
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, cluster.Entry{Index: index, Data: data})
	}
	m.Apply(batch)
	if want := map[uint64]int{5: 2, 7: 3}; !maps.Equal(nodes, want) {
		t.Errorf("nodes by index: %v, want %v", nodes, want)
	}
}

func TestSnapshotBecomesANewCluster(t *testing.T) {
	a, stop := running(t, Config{Cluster: cluster.Config{DataDir: t.TempDir()}})
	register(t, a, 3)
	old := a.Replica().State().ClusterID
	control := controlsocket.Dial(a.cfg.Cluster.DataDir)
	members, err := control.Members(t.Context())
	if err != nil || len(members.Members) != 1 || members.Members[0].Role != neon.RoleLeader {
		t.Fatalf("members %+v, %v", members, err)
	}
	var saved bytes.Buffer
	if _, err := control.Snapshot(t.Context(), cluster.SaveNewest, &saved); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	info, err := InspectSnapshot(bytes.NewReader(saved.Bytes()))
	if err != nil || info.Nodes != 1 || info.ClusterID != old {
		t.Fatalf("inspected %+v, %v", info, err)
	}
	damaged := bytes.Clone(saved.Bytes())
	damaged[len(damaged)-9] ^= 1
	if _, err := InspectSnapshot(bytes.NewReader(damaged)); !errors.Is(err, cluster.ErrCorrupt) &&
		!errors.Is(err, fsm.ErrBadSnapshot) {
		t.Errorf("a damaged snapshot is read: %v", err)
	}
	dir := t.TempDir()
	to := cluster.Restore{
		DataDir: dir, ID: "b", Members: []cluster.Member{{ID: "b", RaftAddr: "127.0.0.1:0"}},
	}
	done, err := RestoreSnapshot(t.Context(), &saved, to, "")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := running(t, Config{Cluster: cluster.Config{DataDir: dir}})
	s := b.Replica().State()
	if _, ok := s.Node(3); !ok || s.ClusterID != done.ClusterID || s.ClusterID == old ||
		s.Epoch != 1 {
		t.Errorf("node known: %v, cluster %s after %s, epoch %d", ok, s.ClusterID, old, s.Epoch)
	}
}

// A rescue makes a new cluster of the log alone, without a snapshot.
func TestRescueMakesANewClusterOfTheLog(t *testing.T) {
	dir := t.TempDir()
	a, stop := running(t, Config{Cluster: cluster.Config{DataDir: dir}})
	register(t, a, 3)
	old := a.Replica().State().ClusterID
	if _, err := OpenRescue(t.Context(), dir); !errors.Is(err, cluster.ErrDataDirInUse) {
		t.Errorf("opened while a replica runs: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRescue(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if p := r.Plan(); p.Nodes != 1 || p.ClusterID != old || p.LastIndex == 0 {
		t.Errorf("plan %+v", p)
	}
	if err := r.CheckOthersGone(t.Context()); err != nil {
		t.Error(err)
	}
	done, err := r.Do("b", "127.0.0.1:0")
	r.Close()
	if err != nil || done.NewServerID != "b" {
		t.Fatalf("%+v, %v", done, err)
	}
	b, _ := running(t, Config{Cluster: cluster.Config{DataDir: dir}})
	s := b.Replica().State()
	if _, ok := s.Node(3); !ok || s.ClusterID != done.NewClusterID || s.Epoch != 1 ||
		b.Cluster().ID() != "b" {
		t.Errorf("node known: %v, cluster %s, server %s, epoch %d", ok, s.ClusterID,
			b.Cluster().ID(), s.Epoch)
	}
}

func TestTheStateIsSavedAgainAndAgain(t *testing.T) {
	dir := t.TempDir()
	a, _ := running(t, Config{Saves: Saves{Dir: dir, Every: time.Second, Keep: 1}})
	register(t, a, 3)
	await(t, "a saved snapshot of the state", func() bool {
		found, _ := filepath.Glob(filepath.Join(dir, a.Cluster().ID()+"-*.snapshot"))
		if len(found) != 1 {
			return false
		}
		f, err := os.Open(found[0])
		if err != nil {
			return false
		}
		defer f.Close()
		info, err := InspectSnapshot(f)
		return err == nil && info.Nodes == 1
	})
	resp, err := http.Get(a.Address() + "metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(text, []byte("\nstorage_controller_saved_snapshot_age_seconds ")) {
		t.Errorf("no series about its age, %v", err)
	}
}

func TestTakenPortEndsTheStartBeforeTheDataDirectoryIsTouched(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := filepath.Join(t.TempDir(), "data")
	_, err = New(t.Context(), Config{
		HTTP:    HTTP{Config: serve.Config{Listen: l.Addr().String()}},
		Cluster: cluster.Config{DataDir: dir, RaftListen: "127.0.0.1:0"},
	})
	if _, statErr := os.Stat(dir); err == nil || !os.IsNotExist(statErr) {
		t.Errorf("New says %v, the directory %v", err, statErr)
	}
}

// transportOf makes a connection for each request.
func transportOf(dial func(context.Context, string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return dial(ctx, addr)
		},
	}
}

// fetch gets a URL. The status is 0 and the body empty when there is no answer.
func fetch(t *testing.T, c *http.Client, url string) (status int, body string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
