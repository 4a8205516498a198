package simpageserver

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
)

func TestGenerationRules(t *testing.T) {
	const none = neon.Generation(0)
	type step struct {
		mode   neon.LocationMode
		gen    neon.Generation
		status int
	}
	for name, steps := range map[string][]step{
		"same generation swaps in place": {
			{neon.AttachedSingle, 5, 200}, {neon.AttachedMulti, 5, 200},
			{neon.AttachedStale, 5, 200}, {neon.AttachedSingle, 5, 200},
		},
		"higher generation respawns": {
			{neon.AttachedSingle, 5, 200}, {neon.AttachedSingle, 7, 200},
		},
		"lower generation is refused": {
			{neon.AttachedSingle, 5, 200}, {neon.AttachedSingle, 4, 400},
			{neon.AttachedSingle, 5, 200},
		},
		"secondary forgets the generation": {
			{neon.AttachedSingle, 5, 200}, {neon.Secondary, none, 200},
			{neon.AttachedSingle, 3, 200},
		},
		"detached forgets the generation": {
			{neon.AttachedSingle, 5, 200}, {neon.Detached, none, 200},
			{neon.AttachedSingle, 3, 200},
		},
		"detaching nothing succeeds": {{neon.Detached, none, 200}, {neon.Detached, none, 200}},
		"stale re-attaches when newer": {
			{neon.AttachedSingle, 5, 200}, {neon.AttachedStale, 6, 200},
			{neon.AttachedSingle, 5, 400},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{})
			n := w.node(1)
			for i, s := range steps {
				status, body := w.call(n, "PUT", locationPath(shardOf(0)), conf(s.mode, s.gen))
				if status != s.status {
					t.Fatalf("step %d %s %d: status %d, want %d: %s", i, s.mode, s.gen, status,
						s.status, body)
				}
				if status != 200 && !strings.HasPrefix(body, `{"msg":"`) {
					t.Fatalf("error body %s", body)
				}
			}
		})
	}
}

func TestLocationPutRefusesBadBodies(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	good := conf(neon.AttachedSingle, 1)
	for name, body := range map[string]string{
		"empty":          "",
		"not json":       "{",
		"unknown key":    strings.Replace(good, `"mode"`, `"colour":1,"mode"`, 1),
		"no mode":        `{"tenant_conf":{}}`,
		"no tenant_conf": `{"mode":"Detached"}`,
		"unknown mode":   strings.Replace(good, "AttachedSingle", "Attached", 1),
		"attached, no generation": strings.Replace(good, `"generation":1`, `"generation":null`,
			1),
		"secondary with generation": `{"mode":"Secondary","generation":3,"tenant_conf":{}}`,
		"shard number too large": strings.Replace(good, `"shard_number":0,"shard_count":0`,
			`"shard_number":4,"shard_count":4`, 1),
		"generation too large": strings.Replace(good, `"generation":1`, `"generation":4294967296`,
			1),
	} {
		t.Run(name, func(t *testing.T) { w.want(400, n, "PUT", locationPath(shardOf(0)), body) })
	}
	w.want(400, n, "PUT", "/v1/tenant/xyz/location_config", good)
	w.want(404, n, "PUT", "/v1/tenant/"+shardOf(0).String()+"/colour", good)
	if _, ok := n.Location(shardOf(0)); ok {
		t.Fatal("a refused PUT left a location")
	}
}

func TestListingShowsWhatWasPut(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(7)
	unsharded, sharded := shardOf(1), neon.ShardID{Tenant: shardOf(2).Tenant, Number: 1, Count: 2}
	g := w.auth.grant(unsharded, 7)
	body := strings.Replace(confOf(unsharded, neon.AttachedSingle, g), `"tenant_conf":{}`,
		`"tenant_conf":{"gc_period":"300s","nonsense":4}`, 1)
	if got := w.want(200, n, "PUT", locationPath(unsharded)+"?lazy=true",
		body); got != `{"shards":[{"shard_id":"`+unsharded.String()+`","node_id":7}]}` {
		t.Fatalf("answer %s", got)
	}
	if got := w.want(200, n, "PUT", locationPath(sharded),
		confOf(sharded, neon.Secondary, 0)); got != `{"shards":[],"stripe_size":2048}` {
		t.Fatalf("answer %s", got)
	}
	list, err := neon.ParseLocationListing([]byte(w.want(200, n, "GET", "/v1/location_config",
		nil)))
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Shard != unsharded || list[1].Shard != sharded {
		t.Fatalf("listing %+v", list)
	}
	first, second := list[0].Config, list[1].Config
	if first.Mode != neon.AttachedSingle || *first.Generation != g ||
		first.TenantConf.JSON() != `{"gc_period":"5m"}` {
		t.Fatalf("attached location %+v", first)
	}
	if second.Mode != neon.Secondary || second.Generation != nil || !second.SecondaryConf.Warm ||
		second.ShardNumber != 1 || second.ShardCount != 2 {
		t.Fatalf("secondary location %+v", second)
	}
	var one neon.LocationConfig
	if err := json.Unmarshal([]byte(w.want(200, n, "GET", "/v1/location_config/"+sharded.String(),
		nil)), &one); err != nil || one.Mode != neon.Secondary {
		t.Fatalf("single location %+v, %v", one, err)
	}
	if got := w.want(404, n, "GET", "/v1/location_config/"+shardOf(9).String(),
		nil); !strings.Contains(got, "tenant "+shardOf(9).String()) {
		t.Fatalf("absent shard: %s", got)
	}
	if got := w.want(200, n, "PUT", locationPath(sharded), conf(neon.Detached, 0)); got != "null" {
		t.Fatalf("detach answered %s", got)
	}
	w.silent()
}

func TestSlotInProgressIsNullAndConflicts(t *testing.T) {
	w := newWorld(t, Options{Behaviour: Behaviour{SlotBusy: 300 * time.Millisecond}})
	n := w.node(1)
	g := w.auth.grant(shardOf(0), 1)
	done := make(chan int, 1)
	go func() {
		status, _ := w.call(n, "PUT", locationPath(shardOf(0)), conf(neon.AttachedSingle, g))
		done <- status
	}()
	eventually(t, "slot in progress", func() bool {
		v, ok := n.Location(shardOf(0))
		return ok && v.State == InProgress
	})
	if got := w.want(200, n, "GET", "/v1/location_config/"+shardOf(0).String(),
		nil); got != "null" {
		t.Errorf("single listing %s", got)
	}
	if got := w.want(200, n, "GET", "/v1/location_config", nil); !strings.Contains(got, ",null]") {
		t.Errorf("listing %s", got)
	}
	w.want(409, n, "PUT", locationPath(shardOf(0)), conf(neon.AttachedSingle, g))
	w.want(503, n, "PUT", locationPath(shardOf(0)), conf(neon.Detached, 0))
	if status := <-done; status != 200 {
		t.Errorf("first PUT: status %d", status)
	}
	w.silent()
}

// An attachment waits for its turn only where nothing was attached.
func TestAnAttachmentThatReplacesAnotherIsNotLazy(t *testing.T) {
	w := newWorld(t, Options{Behaviour: Behaviour{LazyActivation: time.Hour}})
	n := w.node(1)
	for _, want := range []State{Attaching, Active} {
		g := w.auth.grant(shardOf(0), 1)
		w.want(200, n, "PUT", locationPath(shardOf(0))+"?lazy=true", conf(neon.AttachedSingle, g))
		if v, _ := n.Location(shardOf(0)); v.State != want {
			t.Errorf("in generation %s it is %s", g, v.State)
		}
	}
	w.silent()
}

func TestActivationTakesTimeAfterTheReply(t *testing.T) {
	w := newWorld(t, Options{Behaviour: Behaviour{Activation: 150 * time.Millisecond}})
	n := w.node(1)
	w.attach(n, shardOf(0))
	if v, _ := n.Location(shardOf(0)); v.State != Attaching {
		t.Fatalf("state %s right after the reply", v.State)
	}
	w.want(200, n, "GET", "/v1/tenant/"+shardOf(0).String()+"/timeline", nil)
	if v, _ := n.Location(shardOf(0)); v.State != Active {
		t.Fatalf("state %s after a call that waits for activation", v.State)
	}
	n.Break(shardOf(0))
	w.want(500, n, "GET", "/v1/tenant/"+shardOf(0).String()+"/timeline", nil)
}

func TestHandlerRunsOnAfterTheClientGaveUp(t *testing.T) {
	w := newWorld(t, Options{Behaviour: Behaviour{SlotBusy: 200 * time.Millisecond}})
	n := w.node(1)
	g := w.auth.grant(shardOf(0), 1)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if status, _ := w.do(ctx, http.MethodPut, "http://"+n.Addr()+locationPath(shardOf(0)),
		conf(neon.AttachedSingle, g)); status != 0 {
		t.Fatalf("status %d, want a timeout", status)
	}
	eventually(t, "attached although the client gave up", func() bool {
		v, _ := n.Location(shardOf(0))
		return v.State == Active
	})
	w.silent()
}

func TestKilledProcessHasNoLateEffects(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	n.SetFaults(Fault{Kind: FaultDelay, Route: RouteLocationPut, Delay: time.Hour})
	done := make(chan int, 1)
	g := w.auth.grant(shardOf(0), 1)
	go func() {
		status, _ := w.call(n, "PUT", locationPath(shardOf(0)), conf(neon.AttachedSingle, g))
		done <- status
	}()
	eventually(t, "request received", func() bool {
		for _, e := range w.fleet.Oracle().History() {
			if e.Kind == EventReceived {
				return true
			}
		}
		return false
	})
	n.Kill()
	if status := <-done; status != 0 {
		t.Fatalf("status %d from a killed process", status)
	}
	if _, ok := n.Location(shardOf(0)); ok {
		t.Fatal("a killed process attached a shard")
	}
}

func TestAuthorization(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1,
		func(o *NodeOptions) { o.Authorize = func(token string) bool { return token == "secret" } })
	w.want(401, n, "GET", "/v1/utilization", nil)
	w.want(200, n, "GET", "/v1/status", nil)
}

func TestUtilization(t *testing.T) {
	w := newWorld(t, Options{Store: NewStore(StoreOptions{ShardBytes: 1 << 30})})
	n := w.node(1)
	for i := range 5 {
		w.attach(n, shardOf(i))
	}
	w.put(n, shardOf(9), neon.Secondary, 0)
	var u neon.Utilization
	if err := json.Unmarshal([]byte(w.want(200, n, "GET", "/v1/utilization", nil)),
		&u); err != nil {
		t.Fatal(err)
	}
	if u.ShardCount != 6 || u.MaxShardCount != 2500 || u.DiskWantedBytes != 6<<30 ||
		u.CachedScore == nil || *u.CachedScore != u.Score() || u.Score() == 0 {
		t.Fatalf("utilization %+v", u)
	}
	n.SetBehaviour(Behaviour{
		Utilization: func(u neon.Utilization) neon.Utilization { u.ShardCount = 2500; return u },
	})
	if err := json.Unmarshal([]byte(w.want(200, n, "GET", "/v1/utilization", nil)),
		&u); err != nil || u.ShardCount != 2500 || *u.CachedScore != 1_000_000 {
		t.Fatalf("lying utilization %+v, %v", u, err)
	}
}
