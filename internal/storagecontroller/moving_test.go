package storagecontroller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/internal/app"
	"quorate/internal/handover"
	"quorate/internal/neondb"
	"quorate/internal/neonstate"
	"quorate/testcluster"
	"quorate/testcluster/realpostgres"
)

// command runs a command in this process, and returns what it prints.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRoot(Seams{})
	root.SetOut(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(t, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// emptyDatabase makes a database in a Postgres of this test.
func emptyDatabase(t *testing.T) string {
	t.Helper()
	if os.Getenv(realpostgres.Wanted) == "" {
		t.Skipf("NOT TESTED WITH POSTGRES: %s is not set, `make e2e` sets it", realpostgres.Wanted)
	}
	s, err := realpostgres.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	url, err := s.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return url
}

func content(t *testing.T, url string) *neondb.Content {
	t.Helper()
	db, err := neondb.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	c, err := db.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// existing is an existing controller, as far as who takes over hears of it.
type existing struct {
	*httptest.Server
	asked int
}

func newExisting(t *testing.T) *existing {
	e := &existing{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut || r.URL.Path != "/control/v1/step_down" ||
			r.Header.Get("Authorization") != "Bearer peer" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		e.asked++
		_, _ = w.Write([]byte(`{}`))
	}))
	t.Cleanup(e.Close)
	return e
}

// stopAll ends the controllers, the leader last, and returns which that was.
func stopAll(t *testing.T, ctx context.Context, c *testcluster.Cluster) int {
	t.Helper()
	leader, err := c.WaitLeader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Controllers() {
		if i != leader {
			if err := c.StopController(ctx, i); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.StopController(ctx, leader); err != nil {
		t.Fatal(err)
	}
	return leader
}

// TestMovingOutAndInAgain moves a cluster of three processes into a real PostgreSQL, and back
// out of it, while its pageservers run: their checker allows no generation twice, and none
// that goes back.
func TestMovingOutAndInAgain(t *testing.T) {
	url := emptyDatabase(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := testcluster.Run(t, testcluster.Builder{
		Mode: testcluster.Processes, Controllers: 3, Pageservers: 4, Zones: 2, Hook: true,
	})
	for n := range byte(6) {
		if _, err := c.Client().Tenants().Create(ctx, neon.TenantCreateRequest{
			Tenant:    neon.Unsharded(neon.TenantID{n + 1}),
			Placement: new(neon.Attached(1)),
			ShardParameters: &neon.ShardParameters{
				Count: neon.ShardCount(4 * (n % 2)), StripeSize: 2048,
			},
		}); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, ctx, c)

	leader := stopAll(t, ctx, c)
	if out, err := command(t, "export", "--to", url, "--plan", "--data-dir",
		c.DataDir((leader+1)%3)); err == nil || !strings.Contains(err.Error(), "led last") {
		t.Errorf("a follower's disk: %v\n%s", err, out)
	}
	mustRun(t, "export", "--to", url, "--data-dir", c.DataDir(leader))
	was := content(t, url)
	if len(was.Shards) != 15 || len(was.Nodes) != 4 || was.Mark != nil {
		t.Fatalf("%d shards, %d nodes, %+v", len(was.Shards), len(was.Nodes), was.Mark)
	}
	if _, err := command(t, "export", "--to", url, "--data-dir", c.DataDir(leader),
		"--overwrite"); err == nil {
		t.Error("a database that is not ours was overwritten")
	}

	e := newExisting(t)
	lead(t, url, e.URL+"/")
	file := filepath.Join(t.TempDir(), "moved.snapshot")
	plan := mustRun(t, "import", "--from", url, "--pageservers")
	if !strings.Contains(plan, "shards       15, 15 of them attached") {
		t.Errorf("plan:\n%s", plan)
	}
	cut := []string{"import", "--from", url, "--cut-over", "--snapshot", file, "--pageservers"}
	if out, err := command(t, cut...); err == nil {
		t.Errorf("taken without the token:\n%s", out)
	}
	cut = append(cut, "--peer-jwt-token", "peer")
	mustRun(t, cut...)
	if out, err := command(t, cut...); !errors.Is(err, neondb.ErrHandedOut) {
		t.Errorf("handed out twice: %v\n%s", err, out)
	}
	mustRun(t, append(cut, "--again")...)
	if e.asked != 1 {
		t.Errorf("the existing controller was asked %d times", e.asked)
	}
	if out, err := command(t, "import", "--from", url, "--abort"); err == nil {
		t.Errorf("handed back:\n%s", out)
	}

	found(t, ctx, c, file)
	settle(t, ctx, c)
	if _, err := c.KillLeader(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Fleet().Nodes()[0].Restart(ctx); err != nil {
		t.Fatal(err)
	}
	settle(t, ctx, c)

	restartAll(t, ctx, c)
	leader = stopAll(t, ctx, c)
	if out, err := command(t, "export", "--to", url, "--data-dir",
		c.DataDir(leader)); err == nil {
		t.Errorf("overwritten:\n%s", out)
	}
	mustRun(t, "export", "--to", url, "--data-dir", c.DataDir(leader), "--overwrite")
	compare(t, was, content(t, url))
}

func settle(t *testing.T, ctx context.Context, c *testcluster.Cluster) {
	t.Helper()
	if err := c.WaitQuiescent(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckAll(ctx); err != nil {
		t.Fatal(err)
	}
}

// lead makes an existing controller the leader, as its start does.
func lead(t *testing.T, url, address string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "INSERT INTO controllers VALUES ($1, now())",
		address); err != nil {
		t.Fatal(err)
	}
}

// found founds a cluster from a snapshot, in the place of the one that was stopped.
func found(t *testing.T, ctx context.Context, c *testcluster.Cluster, file string) {
	t.Helper()
	var members, ids []string
	for i := range c.Controllers() {
		r, err := app.OpenRescue(ctx, c.DataDir(i))
		if err != nil {
			t.Fatal(err)
		}
		p := r.Plan()
		r.Close()
		ids, members = append(ids, p.ServerID), members[:0]
		for _, m := range p.Members {
			members = append(members, m.ID+"="+m.RaftAddr)
		}
		if err := os.RemoveAll(c.DataDir(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range ids {
		mustRun(t, "snapshot", "restore", file, "--data-dir", c.DataDir(i), "--server-id", id,
			"--members", strings.Join(members, ","), "--cluster-id", "moved")
	}
	restartAll(t, ctx, c)
}

func restartAll(t *testing.T, ctx context.Context, c *testcluster.Cluster) {
	t.Helper()
	for i := range c.Controllers() {
		if !c.Running(i) {
			if err := c.Restart(ctx, i); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// compare finds everything that was there in a later content, with larger generations.
func compare(t *testing.T, was, is *neondb.Content) {
	t.Helper()
	if is.Mark != nil || len(is.Leaders) > 0 || len(is.Shards) != len(was.Shards) ||
		len(is.Nodes) != len(was.Nodes) {
		t.Fatalf("%+v, %+v leads, %d shards", is.Mark, is.Leaders, len(is.Shards))
	}
	for i, a := range was.Shards {
		b := is.Shards[i]
		if *b.Generation < *a.Generation+2*neondb.Jump {
			t.Errorf("%s went from generation %d to %d", a.Tenant, *a.Generation, *b.Generation)
		}
		a.Generation, b.Generation, a.Pageserver, b.Pageserver = nil, nil, nil, nil
		a.PreferredAZ, b.PreferredAZ = nil, nil
		if a != b {
			t.Errorf("%+v became %+v", a, b)
		}
	}
}

func TestMovingCommandLines(t *testing.T) {
	for _, args := range []string{
		"import --from=", "import --from x --cut-over", "import --from x --snapshot f",
		"import --from x --cut-over --snapshot f",
		"import --from x --cut-over --snapshot f --pageservers --unchecked",
		"import --from x --again",
		"import --from x --interval 0s", "import --from x --address-for-peers http://a",
		"import --from x -o yaml", "export --data-dir d", "export --to x",
		"export --to x --snapshot f", "export --to x --snapshot f --copy --stopped",
		"export --to x --data-dir d -o yaml",
	} {
		t.Setenv("DATABASE_URL", "")
		if code := Run(strings.Fields(args), Seams{}); code != exitUsage {
			t.Errorf("%s: exits with %d", args, code)
		}
	}
	missing := filepath.Join(t.TempDir(), "none")
	for _, args := range [][]string{
		{"import", "--from", "postgres://127.0.0.1:1/x?connect_timeout=1"},
		{"import", "--from", "x", "--ssl-ca-file", missing},
		{"export", "--to", "postgres://127.0.0.1:1/x", "--snapshot", missing, "--copy"},
		{"export", "--to", "postgres://127.0.0.1:1/x", "--data-dir", missing},
	} {
		if code := Run(args, Seams{}); code != exitError {
			t.Errorf("%v: exits with %d", args, code)
		}
	}
}

// TestHelpShowsNoSecrets: those of the environment are what the flags are when none is given.
func TestHelpShowsNoSecrets(t *testing.T) {
	for _, name := range []string{"DATABASE_URL", "PAGESERVER_JWT_TOKEN", "PEER_JWT_TOKEN"} {
		t.Setenv(name, "hush-"+name)
	}
	for _, name := range []string{"import", "export"} {
		if out := mustRun(t, name, "--help"); strings.Contains(out, "hush") {
			t.Errorf("%s shows a secret:\n%s", name, out)
		}
	}
	dir := filepath.Join(t.TempDir(), "none")
	if _, err := command(t, "export", "--data-dir", dir); errors.Is(err, errUsage) {
		t.Errorf("the URL of the environment is not taken: %v", err)
	}
}

func TestOnlyTheDiskOfTheLastLeaderIsExported(t *testing.T) {
	one, two := make([]cluster.Member, 1), make([]cluster.Member, 2)
	for name, test := range map[string]struct {
		cluster.SurvivorInfo
		refused bool
	}{
		"alone":           {cluster.SurvivorInfo{ServerID: "a", Members: one}, false},
		"nobody is known": {cluster.SurvivorInfo{ServerID: "a", Members: two}, true},
		"another led":     {cluster.SurvivorInfo{ServerID: "a", Members: two, Leader: "b"}, true},
		"it led":          {cluster.SurvivorInfo{ServerID: "a", Members: two, Leader: "a"}, false},
		"gone back": {cluster.SurvivorInfo{ServerID: "a", Members: two, Leader: "a",
			GoneBack: true}, true},
	} {
		if err := newest(test.SurvivorInfo); (err != nil) != test.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMovingReports(t *testing.T) {
	findings := neonstate.Findings{}
	for range shownFindings + 2 {
		findings = append(findings, neonstate.Finding{
			Severity: neonstate.Left, Code: neonstate.UnusedRows, Subject: "a", Text: "b",
		})
	}
	at := time.Unix(1_700_000_000, 0)
	r := &handover.Report{
		Schema: neondb.Schema{
			Migration: "1", Missing: []string{"nodes"}, Unknown: map[string]int{"new": 2},
		},
		Leader: &neondb.Leader{Address: "http://old/", StartedAt: at},
		Mark:   &neondb.Mark{ID: "neon-1", Kind: neondb.Taken, At: at}, Findings: findings,
		Blocking: []neonstate.Code{neonstate.BadRow},
	}
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		f := importFlags{output: format}
		if err := f.print(&out, r); err != nil || !strings.Contains(out.String(), "http://old/") ||
			!strings.Contains(out.String(), "bad_row") {
			t.Errorf("%v\n%s", err, out.String())
		}
		if format == "text" && !strings.Contains(out.String(), "2 more of unused_rows") {
			t.Errorf("not bounded:\n%s", out.String())
		}
		seen := handover.Seen{
			At: at, Findings: findings[:1], Gone: findings[1:2],
			Changes: []handover.Change{{Table: "nodes", Key: "1", Is: "x"}},
		}
		out.Reset()
		if err := f.printSeen(&out, seen); err != nil || !strings.Contains(out.String(), "nodes") {
			t.Errorf("%v\n%s", err, out.String())
		}
		if out.Reset(); f.printSeen(&out, handover.Seen{}) != nil || out.Len() > 0 {
			t.Errorf("tells nothing as %q", out.String())
		}
		w := &handover.Written{Shards: 5, Findings: findings[:1], Blocking: r.Blocking}
		e := exportFlags{output: format}
		if err := e.print(&out, w); err != nil || !strings.Contains(out.String(), "bad_row") {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}

func TestStepDownOfAnExistingController(t *testing.T) {
	answer := `{"0123456789abcdef0123456789abcdef":{"locations":{"7":{"conf":null}}}}`
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	defer s.Close()
	seen, err := stepDown(t.Context(), s.Client(), s.URL+"/", "")
	if text, _ := json.Marshal(seen); err != nil || string(text) != answer {
		t.Errorf("%v, %s", err, text)
	}
	if !answers(t.Context(), s.Client(), s.URL+"/") {
		t.Error("it does not run")
	}
	status = http.StatusForbidden
	if _, err := stepDown(t.Context(), s.Client(), s.URL, ""); err == nil ||
		errors.Is(err, handover.ErrUnsure) {
		t.Errorf("403: %v", err)
	}
	status = http.StatusServiceUnavailable
	if _, err := stepDown(t.Context(), s.Client(), s.URL, ""); !errors.Is(err,
		handover.ErrUnsure) {
		t.Errorf("503: %v", err)
	}
	if answers(t.Context(), s.Client(), s.URL) {
		t.Error("a balancer is taken for the controller")
	}
	status, answer = http.StatusOK, "[]"
	if _, err := stepDown(t.Context(), s.Client(), s.URL, ""); err == nil {
		t.Error("nonsense is taken for an answer")
	}
}
