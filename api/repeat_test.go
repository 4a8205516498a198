package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"quorate/api/internal/forward"
	"quorate/api/neon"
	"quorate/fsm"
)

// upgraded gives a world everything that the leader gives a cluster.
func (w *world) upgraded() *world {
	w.t.Helper()
	w.log.Upgrade(w.t)
	w.must(fsm.SetPeerSecret{Secret: make([]byte, fsm.PeerSecretSize)})
	return w
}

// deposeAfter makes the leader lose its lead after the n-th command that it commits. Its
// answer is lost. Meanwhile others do what between does, at the next leader.
func (w *world) deposeAfter(n int, between func()) {
	w.replicas[0].propose = func(next func() (fsm.Result, error)) (fsm.Result, error) {
		res, err := next()
		if n--; n != 0 || err != nil {
			return res, err
		}
		w.setLeader(1)
		between()
		return fsm.Result{}, neon.Errorf(neon.OutcomeUnknown, "lost leadership")
	}
}

const putLocation = `{"mode":"Detached","tenant_conf":{}}`

// The leader has carried out a request, and its answer is lost. Until the replica that
// the client talks to asks the next leader, another client changes the same, and hears of
// it. What it was told must stay true.
func TestARequestThatWasDoneIsNotDoneAgainByTheNextLeader(t *testing.T) {
	create := `{"new_tenant_id":"` + tenantA + `"}`
	config := func(n int) string {
		return `{"tenant_id":"` + tenantA + `","gc_horizon":` + strconv.Itoa(n) + `}`
	}
	for name, c := range map[string]struct {
		before        func(*replica)
		method, path  string
		body          string
		commands      int // of the first try
		between       func(*replica) got
		status, after int
		holds         func(*fsm.State, fsm.Tenant, bool) bool
	}{
		"a deleted tenant that was created again": {
			before: func(r *replica) { r.do("POST", "/v1/tenant", create) },
			method: "DELETE", path: "/v1/tenant/" + tenantA, commands: 2,
			between: func(r *replica) got { return r.do("POST", "/v1/tenant", create) },
			status:  200, after: 201,
			holds: func(_ *fsm.State, _ fsm.Tenant, there bool) bool { return there },
		},
		"a created tenant that was deleted": {
			method: "POST", path: "/v1/tenant", body: create, commands: 1,
			between: func(r *replica) got { return r.do("DELETE", "/v1/tenant/"+tenantA, "") },
			status:  201, after: 200,
			holds: func(_ *fsm.State, _ fsm.Tenant, there bool) bool { return !there },
		},
		"a configuration": {
			before: func(r *replica) { r.do("POST", "/v1/tenant", create) },
			method: "PUT", path: "/v1/tenant/config", body: config(1), commands: 1,
			between: func(r *replica) got { return r.do("PUT", "/v1/tenant/config", config(2)) },
			status:  200, after: 200,
			holds: func(_ *fsm.State, t fsm.Tenant, _ bool) bool {
				return strings.Contains(string(t.Config.JSON()), `"gc_horizon":2`)
			},
		},
		"a location": {
			before: func(r *replica) { r.do("POST", "/v1/tenant", create) },
			method: "PUT", path: "/v1/tenant/" + tenantA + "/location_config", body: putLocation,
			commands: 1,
			between: func(r *replica) got {
				return r.do("PUT", "/control/v1/tenant/"+tenantA+"/policy",
					`{"placement":{"Attached":0}}`)
			},
			status: 200, after: 200,
			holds: func(_ *fsm.State, t fsm.Tenant, _ bool) bool {
				return t.Policy == neon.Attached(0)
			},
		},
		"a drain": {
			method: "PUT", path: "/control/v1/node/1/drain", commands: 1,
			between: func(r *replica) got {
				return r.do("DELETE", "/control/v1/node/1/drain", "")
			},
			status: 202, after: 202,
			holds: func(s *fsm.State, _ fsm.Tenant, _ bool) bool {
				n, _ := s.Node(1)
				return n.Operation.Kind == fsm.OperationNone
			},
		},
		"a registration": {
			method: "POST", path: "/control/v1/node", body: registration(9, 1), commands: 1,
			between: func(r *replica) got {
				return r.do("POST", "/control/v1/node", registration(9, 2))
			},
			status: 200, after: 200,
			holds: func(s *fsm.State, _ fsm.Tenant, _ bool) bool {
				n, _ := s.Node(9)
				return n.Addr.HTTPSPort == 2
			},
		},
		"a member that was added again": {
			method: "DELETE", path: "/control/v1/cluster/members/7", commands: 1,
			between: func(r *replica) got {
				return r.do("POST", "/control/v1/cluster/members", `{"id":"7","raft_addr":"a:1"}`)
			},
			status: 200, after: 200,
			holds: func(*fsm.State, fsm.Tenant, bool) bool { return true },
		},
	} {
		for _, entry := range []int{0, 2} {
			w := newWorld(t, setup{replicas: 3}).upgraded()
			w.addNodes(2)
			if c.before != nil {
				c.before(w.replicas[0])
			}
			members := ""
			w.deposeAfter(c.commands, func() {
				if g := c.between(w.replicas[1]); g.status != c.after {
					t.Errorf("%s: in between: %d %s", name, g.status, g.body)
				}
				members = strings.Join(w.members, ",")
			})
			g := w.replicas[entry].do(c.method, c.path, c.body, "X-Request-Id", "one")
			if g.status != c.status {
				t.Errorf("%s, asked at %d: %d %s", name, entry, g.status, g.body)
			}
			s := w.log.State()
			tenant, there := s.Tenant(tenantID(t, tenantA))
			if !c.holds(s, tenant, there) || strings.Join(w.members, ",") != members {
				t.Errorf("%s, asked at %d: what was acknowledged later is undone", name, entry)
			}
		}
	}
}

func registration(node, port int) string {
	return `{"node_id":` + strconv.Itoa(node) + `,"listen_pg_addr":"ps","listen_pg_port":1,` +
		`"listen_http_addr":"ps","listen_http_port":1,"listen_https_port":` + strconv.Itoa(port) +
		`,"availability_zone_id":"a"}`
}

// A client may send one request id with everything that it does, also with the very same
// request.
func TestWhatAClientSendsAnewIsDoneAnew(t *testing.T) {
	w := newWorld(t, setup{replicas: 2}).upgraded()
	w.addNodes(1)
	create := `{"new_tenant_id":"` + tenantA + `"}`
	for i := range 3 {
		r := w.replicas[i%2]
		if g := r.do("POST", "/v1/tenant", create, "X-Request-Id", "same"); g.status != 201 ||
			w.log.State().TenantCount() != 1 {
			t.Errorf("creation %d: %d %s", i, g.status, g.body)
		}
		if g := r.do("DELETE", "/v1/tenant/"+tenantA, "", "X-Request-Id", "same"); g.status != 200 ||
			w.log.State().TenantCount() != 0 {
			t.Errorf("deletion %d: %d %s", i, g.status, g.body)
		}
	}
}

// Nobody but a member can say that a request was tried before.
func TestATryThatAClientInventsCountsForNothing(t *testing.T) {
	w := newWorld(t, setup{replicas: 2}).upgraded()
	w.addNodes(1)
	create := `{"new_tenant_id":"` + tenantA + `"}`
	seal := strings.Repeat("ab", 16) + ".2." + strings.Repeat("cd", 32)
	for i := range 4 {
		headers := []string{forward.TryHeader, seal}
		if i > 1 {
			headers = append(headers, forward.HopHeader, "1")
		}
		w.replicas[0].do("POST", "/v1/tenant", create, headers...)
		w.replicas[0].do("DELETE", "/v1/tenant/"+tenantA, "", headers...)
		if n := w.log.State().TenantCount(); n != 0 {
			t.Errorf("deletion %d was not carried out", i)
		}
	}
	// Also not at a follower, which makes its own.
	g := w.replicas[1].do("POST", "/v1/tenant", create, forward.TryHeader, seal)
	if _, done := w.log.State().Done(fsm.RequestID{0xab}); g.status != 201 || done {
		t.Errorf("%d %s", g.status, g.body)
	}
}

// A leader that has only begun may not know the secret yet. It must not take a further
// try for a first one.
func TestALeaderThatDoesNotKnowTheSecretAsksForIt(t *testing.T) {
	w := newWorld(t, setup{replicas: 3}).upgraded()
	w.addNodes(1)
	w.replicas[0].do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	w.replicas[1].behind = fsm.NewState()
	w.deposeAfter(2, func() {
		w.must(fsm.CreateTenant{
			ID: tenantID(t, tenantA), Stripe: 8, Policy: neon.Attached(0),
			Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}},
		})
	})
	w.replicas[2].do("DELETE", "/v1/tenant/"+tenantA, "").want(t, 200, "null")
	if w.log.State().TenantCount() != 1 {
		t.Error("the new tenant is gone")
	}
}

func TestAKeyIsOfOneRequest(t *testing.T) {
	w := newWorld(t, setup{replicas: 2}).upgraded()
	w.addNodes(2)
	do := func(at int, method, path, body, key string) got {
		return w.replicas[at].do(method, path, body, keyHeader, key)
	}
	create := `{"new_tenant_id":"` + tenantA + `"}`
	for at := range 2 {
		if g := do(at, "POST", "/v1/tenant", create, "k1"); g.status != 201 {
			t.Errorf("%d %s", g.status, g.body)
		}
	}
	do(0, "DELETE", "/v1/tenant/"+tenantA, "", "k2").want(t, 200, "null")
	do(1, "POST", "/v1/tenant", create, "k1").want(t, 201, `{"shards":[]}`)
	do(1, "DELETE", "/v1/tenant/"+tenantA, "", "k2").want(t, 200, "null")
	if n := w.log.State().TenantCount(); n != 0 {
		t.Errorf("%d tenants", n)
	}
	const reused = `{"msg":"Idempotency-Key: another request was sent under this key"}`
	do(0, "POST", "/v1/tenant", `{"new_tenant_id":"`+tenantB+`"}`, "k1").want(t, 422, reused)
	do(1, "DELETE", "/v1/tenant/"+tenantA, "", "k1").want(t, 422, reused)
	// What has failed may be tried again.
	do(0, "PUT", "/control/v1/node/7/drain", "", "k3").
		want(t, 404, `{"msg":"NotFound: Node 7 not registered"}`)
	w.must(fsm.RegisterNode{ID: 7, Addr: fsm.NodeAddr{HTTPHost: "ps"}})
	w.must(fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: 7, To: neon.NodeActive}}})
	do(0, "PUT", "/control/v1/node/7/drain", "", "k3").want(t, 202, "null")
	do(0, "DELETE", "/control/v1/node/7/drain", "", "k4").want(t, 202, "null")
	do(0, "PUT", "/control/v1/node/7/drain", "", "k3").want(t, 202, "null")
	if n, _ := w.log.State().Node(7); n.Operation.Kind != fsm.OperationNone {
		t.Error("it is drained again")
	}
	// What has changed nothing was carried out too.
	pause := `{"node_id":2,"scheduling":"Pause"}`
	do(0, "PUT", "/control/v1/node/2/config", pause, "k5").want(t, 200, "null")
	do(0, "PUT", "/control/v1/node/2/config", pause, "k6").want(t, 200, "null")
	do(0, "PUT", "/control/v1/node/2/config", `{"node_id":2,"scheduling":"Active"}`, "k7")
	do(0, "PUT", "/control/v1/node/2/config", pause, "k6").want(t, 200, "null")
	if n, _ := w.log.State().Node(2); n.Scheduling != neon.SchedulingActive {
		t.Errorf("node 2 is %s", n.Scheduling)
	}
}

func TestARequestUnderAKeyThatIsBeingCarriedOutIsNotBegunAgain(t *testing.T) {
	w := newWorld(t, setup{replicas: 2}).upgraded()
	w.addNodes(1)
	begun, end := make(chan struct{}), make(chan struct{})
	w.replicas[0].await = func(context.Context) error {
		close(begun)
		<-end
		return nil
	}
	create := `{"new_tenant_id":"` + tenantA + `"}`
	first := make(chan got)
	go func() { first <- w.replicas[1].do("POST", "/v1/tenant", create, keyHeader, "k") }()
	<-begun
	g := w.replicas[0].do("POST", "/v1/tenant", create, keyHeader, "k")
	if g.status != http.StatusConflict || g.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", g.status, g.header, g.body)
	}
	close(end)
	if g := <-first; g.status != http.StatusCreated {
		t.Errorf("%d %s", g.status, g.body)
	}
	w.replicas[0].await = nil
	if g := w.replicas[0].do("POST", "/v1/tenant", create, keyHeader, "k"); g.status != 201 {
		t.Errorf("%d %s", g.status, g.body)
	}
}

// The leader dies with the request that it carries out. Nobody knows that it runs.
func TestAKeyIsNotLockedByALeaderThatIsGone(t *testing.T) {
	w := newWorld(t, setup{replicas: 2}).upgraded()
	w.addNodes(1)
	w.deposeAfter(2, func() {}) // the key, and the tenant
	create := `{"new_tenant_id":"` + tenantA + `"}`
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if g := w.replicas[1].do("POST", "/v1/tenant", create, keyHeader, "k"); g.status == 201 {
			break
		}
	}
	if ctx.Err() != nil || w.log.State().TenantCount() != 1 {
		t.Errorf("%d tenants, %v", w.log.State().TenantCount(), ctx.Err())
	}
}

// Below the second level some member would not recognise the key.
func TestKeysAreRefusedUntilAllMembersKnowThem(t *testing.T) {
	w := newWorld(t, setup{})
	w.addNodes(1)
	g := w.replicas[0].do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`, keyHeader, "k")
	if g.status != 503 || w.log.State().TenantCount() != 0 {
		t.Errorf("%d %s", g.status, g.body)
	}
}

// A repeated order is answered as the order was.
func TestOrdersUnderAKeyAreRecognised(t *testing.T) {
	w := newWorld(t, setup{}).upgraded()
	r := w.replicas[0]
	w.addNodes(2)
	for range 2 {
		r.do("PUT", "/control/v1/node/1/drain", "", keyHeader, "go").want(t, 202, `null`)
	}
	for range 2 {
		r.do("DELETE", "/control/v1/node/1/drain", "", keyHeader, "stop").want(t, 202, `null`)
	}
	r.do("PUT", "/control/v1/node/1/drain", "", keyHeader, "again").want(t, 202, `null`)
	r.do("PUT", "/control/v1/node/1/drain", "", keyHeader, "go").want(t, 202, `null`)
	r.do("PUT", "/control/v1/node/1/drain", "", "X-Request-Id", "go").
		want(t, 412,
			`{"msg":"Precondition failed: Background operation already ongoing for node: drain 1"}`)
}
