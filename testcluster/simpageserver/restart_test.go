package simpageserver

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
)

func TestReattachRaisesGenerationsAndRegisters(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	w.attach(n, shardOf(0))
	addr := n.Addr()
	if err := n.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.ready(n)
	if v, _ := n.Location(shardOf(0)); v.Generation != 2 || v.Mode != neon.AttachedSingle {
		t.Fatalf("after restart %+v", v)
	}
	if n.Addr() != addr {
		t.Fatalf("address changed from %s to %s", addr, n.Addr())
	}
	w.auth.mu.Lock()
	defer w.auth.mu.Unlock()
	r := w.auth.registers[1]
	if len(w.auth.registers) != 2 || r.ID != 1 || r.AZ != neon.MakeAZ("az-1") ||
		r.HTTPAddr != "127.0.0.1" || r.HTTPPort == 0 || r.PgPort == 0 {
		t.Fatalf("registered %+v", w.auth.registers)
	}
	w.silent()
}

func TestReattachPurgesOmittedAndDemotesLowered(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	for i := range 4 {
		w.attach(n, shardOf(i))
	}
	w.put(n, shardOf(4), neon.Secondary, 0)
	n.Kill()
	w.auth.mu.Lock()
	w.auth.owner[shardOf(0)] = 2 // omitted
	w.auth.secondary[shardOf(1)], w.auth.owner[shardOf(1)] = []neon.NodeID{1}, 2
	w.auth.reattach = func(_ neon.ReAttachRequest, resp *neon.ReAttachResponse) {
		for i := range resp.Tenants {
			switch resp.Tenants[i].Shard {
			case shardOf(2):
				resp.Tenants[i].Gen = nil // counts as omitted
			case shardOf(3):
				low := neon.Generation(0)
				resp.Tenants[i].Gen = &low
			}
		}
		g := neon.Generation(9)
		resp.Tenants = append(resp.Tenants, neon.ReAttachTenant{
			Shard: shardOf(5), Gen: &g, Mode: neon.AttachedSingle, StripeSize: 1,
		})
	}
	w.auth.mu.Unlock()
	w.start(n)
	for i, want := range map[int]neon.LocationMode{
		0: "", 1: neon.Secondary, 2: "", 3: neon.Secondary, 4: "", 5: "",
	} {
		if v, _ := n.Location(shardOf(i)); v.Mode != want {
			t.Errorf("shard %d is %q, want %q", i, v.Mode, want)
		}
	}
	if got := w.fleet.Secondaries()[1]; got != 2 {
		t.Errorf("%d secondaries counted", got)
	}
}

func TestNoReplyUntilReattachIsAnswered(t *testing.T) {
	w := newWorld(t, Options{})
	w.auth.refuse = 1
	n, err := w.fleet.AddNode(NodeOptions{ID: 1, Upcalls: []string{w.base}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if status, _ := w.do(ctx, http.MethodGet, "http://"+n.Addr()+"/v1/utilization",
		nil); status != 0 {
		t.Fatalf("status %d before re-attach", status)
	}
	if w.fleet.Attached()[1] != 0 {
		t.Fatal("counted before re-attach")
	}
	w.ready(n)
	w.want(200, n, "GET", "/v1/utilization", nil)
}

func TestUpcallsTryTheNextController(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1,
		func(o *NodeOptions) { o.Upcalls = []string{"http://127.0.0.1:1/upcall/v1", w.base} })
	w.attach(n, shardOf(0))
	if err := n.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.ready(n)
	w.silent()
}

func TestDiskLossIsReportedOnce(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	w.attach(n, shardOf(0))
	n.WipeDisk()
	w.start(n)
	if got := w.want(200, n, "GET", "/v1/location_config", nil); got != `{"tenant_shards":[]}` {
		t.Fatalf("after disk loss %s", got)
	}
	if err := n.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.ready(n)
	w.auth.mu.Lock()
	defer w.auth.mu.Unlock()
	for i, want := range []bool{false, true, false} {
		if got := *w.auth.requests[i].EmptyLocalDisk; got != want {
			t.Errorf("re-attach %d: empty_local_disk %v", i, got)
		}
	}
	w.silent()
}

func TestZombieHoldsItsOwnGeneration(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	w.attach(n, shardOf(0))
	z, err := n.Clone(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.start(z)
	a, _ := n.Location(shardOf(0))
	b, _ := z.Location(shardOf(0))
	if a.Generation != 1 || b.Generation != 2 || n.Addr() == z.Addr() {
		t.Fatalf("original %+v, zombie %+v", a, b)
	}
	if err := w.fleet.AttachedExactlyOnce([]neon.ShardID{shardOf(0)}); err == nil {
		t.Error("two processes count as attached once")
	}
	if err := w.fleet.AttachedNewest([]neon.ShardID{shardOf(0)}); err != nil {
		t.Error(err)
	}
	w.silent()
}

func TestGracefulStopUploads(t *testing.T) {
	w := newWorld(t, Options{Store: NewStore(StoreOptions{WALRate: 1 << 20})})
	n := w.node(1)
	w.attach(n, shardOf(0))
	w.want(201, n, "POST", "/v1/tenant/"+shardOf(0).String()+"/timeline",
		map[string]any{"new_timeline_id": timelineOf(1)})
	eventually(t, "log growth",
		func() bool {
			return w.fleet.Store().head(timelineOf(1),
				time.Since(w.fleet.epoch)) > bootstrapLsn
		})
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if keys := w.fleet.Store().Keys(shardOf(0).Tenant); len(keys) != 2 {
		t.Fatalf("objects after a graceful stop: %q", keys)
	}
	if err := n.Stop(context.Background()); err == nil {
		t.Error("stopping twice succeeds")
	}
	if status, _ := w.call(n, "GET", "/v1/status", nil); status != 0 {
		t.Errorf("status %d from a stopped node", status)
	}
}

func TestPausedNodeAnswersNothingUntilResumed(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	n.Pause()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if status, _ := w.do(ctx, http.MethodGet, "http://"+n.Addr()+"/v1/status", nil); status != 0 {
		t.Fatalf("status %d from a paused node", status)
	}
	n.Resume()
	w.want(200, n, "GET", "/v1/status", nil)
}

func TestFaults(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	path := "/v1/status"
	for name, c := range map[string]struct {
		rule   Fault
		status int
		body   string
	}{
		"refuse": {
			Fault{Kind: FaultRefuse, Status: 423, Msg: "busy"}, 423, `{"msg":"busy"}`,
		},
		"refuse default": {Fault{Kind: FaultRefuse}, 503, `{"msg":""}`},
		"reset":          {Fault{Kind: FaultReset}, 0, ""},
		"lose reply":     {Fault{Kind: FaultLoseReply}, 0, ""},
		"malformed":      {Fault{Kind: FaultMalformed}, 200, `{"{"id`},
		"wrong error body": {
			Fault{Kind: FaultMalformed, Status: 502}, 502, "<html>bad gateway</html>",
		},
		"other route": {Fault{Kind: FaultRefuse, Route: RouteUtilization}, 200, `{"id":1}`},
		"never now": {
			Fault{Kind: FaultRefuse, On: time.Nanosecond, Off: time.Hour}, 200, `{"id":1}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n.SetFaults(c.rule)
			status, body := w.call(n, "GET", path, nil)
			if status != c.status || status != 0 && body != c.body {
				t.Fatalf("status %d, body %s", status, body)
			}
		})
	}
	n.SetFaults(Fault{Kind: FaultRefuse, Count: 2})
	for i, want := range []int{503, 503, 200} {
		if status, _ := w.call(n, "GET", path, nil); status != want {
			t.Errorf("call %d: status %d, want %d", i, status, want)
		}
	}
}

func TestLostReplyIsAppliedAndResetIsNot(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	g := w.auth.grant(shardOf(0), 1)
	n.SetFaults(Fault{Kind: FaultReset})
	w.call(n, "PUT", locationPath(shardOf(0)), conf(neon.AttachedSingle, g))
	if _, ok := n.Location(shardOf(0)); ok {
		t.Fatal("reset before applying applied")
	}
	n.SetFaults(Fault{Kind: FaultLoseReply})
	w.call(n, "PUT", locationPath(shardOf(0)), conf(neon.AttachedSingle, g))
	if _, ok := n.Location(shardOf(0)); !ok {
		t.Fatal("a lost reply was not applied")
	}
}

func TestDuplicateArrivesLater(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	g := w.auth.grant(shardOf(0), 1)
	n.SetFaults(Fault{
		Kind: FaultDuplicate, Route: RouteLocationPut, Delay: 100 * time.Millisecond, Count: 1,
	})
	w.put(n, shardOf(0), neon.AttachedSingle, g)
	w.put(n, shardOf(0), neon.Detached, 0)
	eventually(t, "the duplicate attaches again",
		func() bool { _, ok := n.Location(shardOf(0)); return ok })
	w.silent()
	if w.fleet.Oracle().Late() == 0 {
		t.Error("the late effect was not counted")
	}
}

func TestHandlerServesWithoutAListener(t *testing.T) {
	w := newWorld(t, Options{})
	n, err := w.fleet.AddNode(NodeOptions{ID: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		// net/http's own convention
		if r := recover(); r != http.ErrAbortHandler { //nolint:errorlint
			t.Errorf("a node that is down answered: %v", r)
		}
	}()
	n.Handler().ServeHTTP(nil, nil)
	t.Error("a node that is down answered")
}

func TestTenantListNamesStates(t *testing.T) {
	w := newWorld(t, Options{Behaviour: Behaviour{Activation: time.Hour}})
	n := w.node(1)
	w.attach(n, shardOf(0))
	w.put(n, shardOf(1), neon.Secondary, 0)
	got := w.want(200, n, "GET", "/v1/tenant", nil)
	if !strings.Contains(got, `"state":{"slug":"Attaching"}`) ||
		strings.Contains(got, shardOf(1).String()) {
		t.Fatalf("tenants %s", got)
	}
}

func TestAttachmentsCountOnlyAfterReattach(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	w.attach(n, shardOf(0))
	n.Kill()
	w.auth.mu.Lock()
	w.auth.refuse = 1
	w.auth.mu.Unlock()
	if err := n.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := w.fleet.AttachedExactlyOnce([]neon.ShardID{shardOf(0)}); err == nil {
		t.Error("attached before the re-attach was answered")
	}
	w.ready(n)
	if err := w.fleet.AttachedExactlyOnce([]neon.ShardID{shardOf(0)}); err != nil {
		t.Error(err)
	}
}

func TestDeadProcessCannotTouchTheDisk(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	old := n.process()
	if err := n.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	if old.with(func(time.Duration, *core) { t.Error("ran") }) {
		t.Error("a dead process still works")
	}
}
