package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/internal/contract"
	"quorate/testcluster/simpageserver"
)

// instances are two controllers of one neon_local environment, with pageservers
// that know both.
type instances struct {
	*testing.T
	one, two *environment
	fleet    *simpageserver.Fleet
	tenant   neon.TenantID
	shards   []neon.ShardID
}

// startFirst starts the first instance and gives it work.
func startFirst(t *testing.T) (*instances, *exec.Cmd) {
	p := &instances{T: t, one: newEnvironment(t), tenant: neon.TenantID{0xaa, 15: 1}}
	p.one.extra = []string{"--start-as-candidate"}
	p.two = p.one.another()
	cmd := p.one.start()
	p.fleet = p.one.addPageservers(2, p.two)
	var created neon.TenantCreateResponse
	p.one.call("POST", "v1/tenant", "pageserverapi", map[string]any{
		"new_tenant_id":    p.tenant,
		"shard_parameters": map[string]int{"count": 4, "stripe_size": 2048}}, &created)
	for _, s := range created.Shards {
		p.shards = append(p.shards, s.Shard)
	}
	return p, cmd
}

// writer writes one value after the other until it is stopped.
type writer struct {
	stop    chan struct{}
	done    sync.WaitGroup
	mu      sync.Mutex
	acked   int
	failed  []string
	slowest time.Duration
}

// write puts ever larger values through the given instances, the next one when one
// does not answer.
func (p *instances) write(through ...*environment) *writer {
	w := &writer{stop: make(chan struct{})}
	w.done.Go(func() {
		for n, at := 1, 0; ; n++ {
			select {
			case <-w.stop:
				return
			default:
			}
			begun := time.Now()
			status, text, err := through[at%len(through)].try("PUT", "v1/tenant/config",
				"pageserverapi",
				map[string]any{"tenant_id": p.tenant, "gc_horizon": n})
			w.mu.Lock()
			w.slowest = max(w.slowest, time.Since(begun))
			if err == nil && status == 200 {
				w.acked = n
			} else {
				at++
				if len(w.failed) < 20 {
					w.failed = append(w.failed, fmt.Sprintf("%d %s %v", status, text, err))
				}
			}
			w.mu.Unlock()
		}
	})
	return w
}

// finish stops the writer and checks that its last acknowledged value, or a later
// one, is there.
func (p *instances) finish(w *writer, at *environment) {
	p.Helper()
	close(w.stop)
	w.done.Wait()
	var conf struct {
		Overrides struct {
			Horizon int `json:"gc_horizon"`
		} `json:"tenant_specific_overrides"`
	}
	at.call("GET", "v1/tenant/"+p.tenant.String()+"/config", "pageserverapi", nil, &conf)
	if got := conf.Overrides.Horizon; got < w.acked || w.acked == 0 {
		p.Errorf("value %d is there, %d was acknowledged", got, w.acked)
	}
	p.Logf("%d values, the slowest took %v", w.acked, w.slowest)
}

// shake moves a shard to the other pageserver, so that generations are issued.
func (p *instances) shake(at *environment) {
	p.Helper()
	var nodes struct {
		Shards []struct {
			Node neon.NodeID `json:"node_id"`
		} `json:"shards"`
	}
	at.call("GET", "debug/v1/tenant/"+p.tenant.String()+"/locate", "admin", nil, &nodes)
	var nothing any
	at.call("PUT", "control/v1/tenant/"+p.shards[0].String()+"/migrate", "admin", map[string]any{
		"node_id":          3 - nodes.Shards[0].Node,
		"migration_config": map[string]any{"prewarm": false, "override_scheduler": true}}, &nothing)
}

func (e *environment) leadership() string {
	_, text, _ := e.try("GET", "metrics", "admin", nil)
	for _, status := range []string{"leader", "stepped_down", "candidate"} {
		if strings.Contains(string(text),
			`storage_controller_leadership_status{status="`+status+`"} 1`) {
			return status
		}
	}
	return ""
}

func (p *instances) leads(e *environment) {
	p.Helper()
	e.poll(20*time.Millisecond, "leading",
		func() bool { return e.ready() && e.leadership() == "leader" })
	// It says so once that is committed, a moment after it leads.
	e.poll(20*time.Millisecond, "told as the leader", func() bool {
		var leader neon.Leader
		e.call("GET", "control/v1/leader", "admin", nil, &leader)
		return leader.Address == e.url()
	})
}

// check looks whether the pageservers have seen anything that must not be.
func (p *instances) check() {
	p.Helper()
	if err := p.fleet.Oracle().Err(); err != nil {
		p.Error(err)
	}
	p.one.poll(20*time.Millisecond, "attached in the newest generation",
		func() bool { return p.fleet.AttachedNewest(p.shards) == nil })
}

func (e *environment) stepDown() string {
	e.t.Helper()
	var seen map[string]struct {
		Locations map[string]json.RawMessage `json:"locations"`
	}
	e.call("PUT", "control/v1/step_down", "admin", nil, &seen)
	text, err := json.Marshal(seen)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(text)
}

// The second instance takes over from the first one without a failed request, and
// the first one forwards; then the other way round.
func TestContractSecondInstanceTakesOverAndTheFirstForwards(t *testing.T) {
	contract.Find(contract.Flag, "--start-as-candidate").Tick(t)
	p, first := startFirst(t)
	p.leads(p.one)
	w := p.write(p.one)
	p.shake(p.one)
	second := p.two.start()
	p.leads(p.two)
	if got := p.one.leadership(); got != "stepped_down" || !p.one.ready() {
		t.Errorf("the first instance is %s", got)
	}
	p.shake(p.one)
	var nothing any
	p.one.call("PUT", "control/v1/node/1/config", "admin",
		map[string]any{"node_id": 1, "scheduling": "Pause"}, &nothing)
	var node neon.NodeDescribe
	for _, e := range []*environment{p.one, p.two} {
		e.call("GET", "control/v1/node/1", "infra", nil, &node)
		if node.Scheduling != neon.SchedulingPause {
			t.Errorf("through instance %d the node is %s", e.number, node.Scheduling)
		}
	}
	p.one.call("PUT", "control/v1/node/1/config", "admin",
		map[string]any{"node_id": 1, "scheduling": "Active"}, &nothing)
	seen := p.one.stepDown()
	if !strings.Contains(seen, p.shards[0].String()) || seen != p.one.stepDown() {
		t.Errorf("stepped down with %s, then with %s", seen, p.one.stepDown())
	}
	p.two.call("POST", "debug/v1/consistency_check", "admin", nil, &nothing)

	// The first one has the turn again when the second one ends, and loses it when
	// that one is back.
	p.two.stop(second, syscall.SIGTERM)
	p.leads(p.one)
	p.shake(p.one)
	second = p.two.start()
	p.leads(p.two)
	p.finish(w, p.one)
	for _, text := range w.failed {
		t.Error("failed: ", text)
	}
	p.check()
	p.one.stop(first, syscall.SIGTERM)
	p.leads(p.two)
	p.two.stop(second, syscall.SIGTERM)
	p.one.checkLog()
	p.two.checkLog()
}

// Alone, an instance that stepped down answers as one that has nobody to forward
// to, until there is somebody.
func TestStepDownOfTheOnlyInstance(t *testing.T) {
	p, first := startFirst(t)
	seen := p.one.stepDown()
	if !strings.Contains(seen, p.shards[0].String()) || seen != p.one.stepDown() {
		t.Errorf("stepped down with %s, then with %s", seen, p.one.stepDown())
	}
	status, text, err := p.one.try("GET", "debug/v1/tenant", "admin", nil)
	if err != nil || status != 503 || string(text) != `{"msg":"Leader is stepped down instance"}` {
		t.Errorf("answered %d %s %v", status, text, err)
	}
	if got := p.one.leadership(); got != "stepped_down" {
		t.Errorf("it is %s", got)
	}
	second := p.two.start()
	p.leads(p.two)
	p.shake(p.one)
	p.check()
	p.two.stop(second, syscall.SIGTERM)
	p.one.stop(first, syscall.SIGTERM)
	p.one.checkLog()
	p.two.checkLog()
}

// Whichever instance is killed, and whenever, the other one goes on with all that
// was acknowledged, and the killed one can come back.
func TestEitherInstanceIsKilledAtEachStep(t *testing.T) {
	steps := []struct {
		name string
		seen func(*instances) bool
	}{
		{"the second has started", func(*instances) bool { return true }},
		// unless it gets its turn before it could say so
		{"the second waits", func(p *instances) bool {
			log := p.two.log()
			return strings.Contains(log, "Waiting for the turn") ||
				strings.Contains(log, "this instance's turn")
		}},
		{
			"the first steps down",
			func(p *instances) bool { return strings.Contains(p.one.log(), "Stepping down for") },
		},
		{"the turn has passed", func(
			p *instances,
		) bool {
			return strings.Contains(p.two.log(), "this instance's turn")
		}},
		{"the second leads", func(
			p *instances,
		) bool {
			return strings.Contains(p.two.log(), "Populating tenant shards")
		}},
		{"the second is ready", func(p *instances) bool { return p.two.ready() }},
	}
	for _, step := range steps {
		for _, victim := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, instance %d dies", step.name, victim), func(t *testing.T) {
				p, first := startFirst(t)
				w := p.write(p.one, p.two)
				second := p.two.spawn()
				p.one.poll(time.Millisecond, step.name, func() bool { return step.seen(p) })
				dead, cmd, survivor := p.one, first, p.two
				if victim == 2 {
					dead, cmd, survivor = p.two, second, p.one
				}
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()
				p.leads(survivor)
				p.shake(survivor)
				back := dead.start()
				p.leads(dead)
				p.shake(survivor)
				p.finish(w, survivor)
				p.check()
				dead.stop(back, syscall.SIGTERM)
				p.leads(survivor)
			})
		}
	}
}

// A frozen instance keeps its turn: nobody can tell whether it would wake up in
// the middle of a write. When its process ends, the turn is free.
func TestFrozenInstanceKeepsItsTurn(t *testing.T) {
	p, first := startFirst(t)
	if err := first.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	second := p.two.spawn()
	p.two.waitLog("Waiting for the turn")
	status, text, err := p.two.try("GET", "control/v1/leader", "admin", nil)
	if err != nil || status != 503 ||
		string(text) != `{"msg":"Current leadership status is candidate"}` {
		t.Errorf("answered %d %s %v", status, text, err)
	}
	if p.two.ready() || p.two.leadership() != "candidate" {
		t.Errorf("it is %s", p.two.leadership())
	}
	if err := first.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.leads(p.two)
	if err := second.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	status, text, err = p.one.try("GET", "status", "admin", nil)
	if err != nil || status != 200 {
		t.Errorf("answered %d %s %v", status, text, err)
	}
	if err := second.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = second.Wait()
	p.leads(p.one)
	p.shake(p.one)
	p.check()
	p.one.checkLog()
}

// An instance that was not told to be a candidate leaves the other one alone.
func TestSecondInstanceThatIsNoCandidateGivesUp(t *testing.T) {
	p, first := startFirst(t)
	p.two.extra = nil
	second := p.two.spawn()
	_ = second.Wait()
	if code := second.ProcessState.ExitCode(); code != 1 ||
		!strings.Contains(p.two.log(), "in use") || !strings.Contains(p.two.log(), p.one.url()) {
		t.Errorf("exit code %d\n%s", code, p.two.log())
	}
	p.leads(p.one)
	p.one.stop(first, syscall.SIGTERM)
}
