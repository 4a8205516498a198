package api

import (
	"context"
	"sync"
	"testing"

	"quorate/api/neon"
	"quorate/internal/contract"
	"quorate/internal/controller"
)

// onePoint is a registry of failpoints in which one makes requests fail.
type onePoint struct {
	mu     sync.Mutex
	name   string
	passed []string // places at which a request may be held or delayed
}

func (p *onePoint) set(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.name = name
}

func (p *onePoint) Armed(string) bool                             { return false }
func (p *onePoint) Sleep(_ context.Context, name string) error    { return p.pass(name) }
func (p *onePoint) Pausable(_ context.Context, name string) error { return p.pass(name) }

func (p *onePoint) pass(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed = append(p.passed, name)
	return nil
}

func (p *onePoint) Return(_ context.Context, name string) (string, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "1", p.name == name, nil
}

// A migration that fails behind any of its steps goes on when it is asked for again,
// and ends in the generation in which it would have ended at once. Up to the commit
// it can be taken back.
func TestContractSafekeeperMigrationFailsAtEachStep(t *testing.T) {
	points := &onePoint{}
	w := newWorld(t, setup{
		points:  points,
		options: controller.Options{OntoSafekeepers: true}, perTimeline: 2,
	})
	r := w.replicas[0]
	w.addNodes(1)
	w.addSafekeepers(2)
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	w.attach(tenantID(t, tenantA))
	r.do("POST", "/v1/tenant/"+tenantA+"/timeline",
		`{"new_timeline_id":"`+timelineX+`","pg_version":16}`)
	w.addSafekeepers(3)
	w.keepers.at = map[neon.NodeID]neon.Lsn{1: 0x20, 2: 0x20, 3: 0x20}
	path := "/v1/tenant/" + tenantA + "/timeline/" + timelineX + "/safekeeper_migrate"
	locate := "/debug/v1/tenant/" + tenantA + "/timeline/" + timelineX + "/locate"
	begun := []string{
		"sk-migration-after-step-3", "sk-migration-after-step-4", "sk-migration-after-step-5",
		"sk-migration-after-step-7",
	}
	for _, name := range begun {
		points.set(name)
		r.do("POST", path, `{"new_sk_set":[2,3]}`).want(t, 400, `{"msg":"\"failpoint `+name+`\""}`)
		points.set("")
		r.do("POST", path+"_abort", "").want(t, 200, `null`)
	}
	r.do("GET", locate, "").want(t, 200, `{"generation":9,"sk_set":[1,2],"new_sk_set":null}`)
	for _, name := range append(begun, "sk-migration-after-step-8",
		"sk-migration-step-9-after-set-membership",
		"sk-migration-step-9-mid-exclude", "sk-migration-step-9-after-exclude",
		"sk-migration-after-step-9") {
		points.set(name)
		r.do("POST", path, `{"new_sk_set":[2,3]}`).want(t, 400, `{"msg":"\"failpoint `+name+`\""}`)
		contract.Find(contract.Failpoint, name).Tick(t)
	}
	points.set("")
	r.do("POST", path, `{"new_sk_set":[2,3]}`).want(t, 200, `null`)
	r.do("GET", locate, "").want(t, 200, `{"generation":11,"sk_set":[2,3],"new_sk_set":null}`)
	if n := w.log.State().SafekeeperOpCount(); n != 0 {
		t.Errorf("%d operations are owed", n)
	}
}
