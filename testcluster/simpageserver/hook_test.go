package simpageserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"quorate/api/neon"
)

func TestHookRemembersWhatComputeWasTold(t *testing.T) {
	w := newWorld(t, Options{})
	hook := NewHook(HookOptions{Oracle: w.fleet.Oracle(), Keep: 3})
	srv := httptest.NewServer(hook)
	defer srv.Close()
	defer hook.Close()
	tell := func(want int, body any) {
		t.Helper()
		if got, text := w.do(context.Background(), http.MethodPut, srv.URL+"/notify-attach",
			body); got != want {
			t.Fatalf("status %d, want %d: %s", got, want, text)
		}
	}
	stripe := neon.StripeSize(2048)
	tenant := shardOf(0).Tenant
	two := neon.NotifyAttach{
		Tenant: tenant, StripeSize: &stripe,
		Shards: neon.List[neon.NotifyShard]{{Node: 4, Number: 0}, {Node: 5, Number: 1}},
	}
	tell(200, two)
	second := neon.ShardID{Tenant: tenant, Number: 1, Count: 2}
	if node, ok := hook.LastNode(second); !ok || node != 5 {
		t.Fatalf("last node %s, %v", node, ok)
	}
	if s, _ := w.fleet.Oracle().Shard(second); s.Notified != 5 {
		t.Fatalf("oracle %+v", s)
	}
	one := neon.NotifyAttach{Tenant: tenant, Shards: neon.List[neon.NotifyShard]{{Node: 6}}}
	for _, rule := range []Fault{
		{Kind: FaultRefuse, Status: 423}, {Kind: FaultRefuse, Status: 429},
		{Kind: FaultRefuse, Status: 500}, {Kind: FaultReset},
	} {
		hook.SetFaults(rule)
		status := rule.Status
		tell(status, one)
		if node, _ := hook.LastNode(second); node != 5 {
			t.Fatalf("status %d told compute of node %s", rule.Status, node)
		}
	}
	hook.SetFaults(Fault{Kind: FaultLoseReply})
	tell(0, one)
	if node, ok := hook.LastNode(shardOf(0)); !ok || node != 6 {
		t.Fatalf("a lost reply told node %s, %v", node, ok)
	}
	if _, ok := hook.LastNode(second); ok {
		t.Fatal("the old shard count is still known")
	}
	if s, _ := w.fleet.Oracle().Shard(second); s.Notified != 0 {
		t.Fatalf("oracle still has %+v", s)
	}
	hook.SetFaults()
	for range 5 {
		tell(200, one)
	}
	if n := len(hook.History(tenant)); n != 3 || hook.Count() != 7 {
		t.Fatalf("%d kept of %d", n, hook.Count())
	}
	tell(400, `{"tenant_id":"`+tenant.String()+`","shards":[{"node_id":1,"shard_number":3}]}`)
	tell(400, `{}`)
	if status, _ := w.do(context.Background(), http.MethodPut, srv.URL+"/elsewhere",
		"{}"); status != 404 {
		t.Fatalf("unknown path: %d", status)
	}
}

func TestHookGoesOnWhenTheCallerGivesUp(t *testing.T) {
	w := newWorld(t, Options{})
	hook := NewHook(HookOptions{})
	srv := httptest.NewServer(hook)
	defer srv.Close()
	defer hook.Close()
	hook.SetFaults(Fault{Kind: FaultDelay, Delay: 150 * time.Millisecond})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	body := neon.NotifyAttach{
		Tenant: shardOf(0).Tenant, Shards: neon.List[neon.NotifyShard]{{Node: 6}},
	}
	if status, _ := w.do(ctx, http.MethodPut, srv.URL+"/notify-attach", body); status != 0 {
		t.Fatalf("status %d", status)
	}
	eventually(t, "told", func() bool { _, ok := hook.LastNode(shardOf(0)); return ok })
	if h := hook.History(shardOf(0).Tenant); !h[0].Late {
		t.Error("a late notification is not marked")
	}
}

// A leader that is deposed has a notification under way while its successor makes
// another one: when the older one is carried out last, that was not meant.
func TestANotificationThatWasOvertakenIsLate(t *testing.T) {
	w := newWorld(t, Options{})
	hook := NewHook(HookOptions{Oracle: w.fleet.Oracle()})
	srv := httptest.NewServer(hook)
	defer srv.Close()
	defer hook.Close()
	tell := func(node neon.NodeID) {
		body := neon.NotifyAttach{
			Tenant: shardOf(0).Tenant, Shards: neon.List[neon.NotifyShard]{{Node: node}},
		}
		if status, text := w.do(context.Background(), http.MethodPut, srv.URL+"/notify-attach",
			body); status != http.StatusOK {
			t.Errorf("status %d: %s", status, text)
		}
	}
	hook.SetFaults(Fault{Kind: FaultDelay, Delay: time.Second})
	older := make(chan struct{})
	go func() { defer close(older); tell(1) }()
	eventually(t, "the older one arrives", func() bool {
		hook.mu.Lock()
		defer hook.mu.Unlock()
		return hook.came == 1
	})
	hook.SetFaults()
	tell(2)
	<-older
	if h := hook.History(shardOf(0).Tenant); len(h) != 2 || h[0].Late || !h[1].Late {
		t.Errorf("history %+v", h)
	}
	if node, _ := hook.LastNode(shardOf(0)); node != 2 {
		t.Errorf("compute uses node %s", node)
	}
	if s, _ := w.fleet.Oracle().Shard(shardOf(0)); s.Notified != 2 {
		t.Errorf("the oracle has %+v", s)
	}
}
