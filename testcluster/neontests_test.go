package testcluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/reconciler"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// Some of Neon's own tests depend on what a controller does of its own accord while they
// work on pageservers by hand. Here are their steps.

// onNode makes a request to a pageserver, as the tests do behind the controllers' backs.
func (s *script) onNode(n neon.NodeID, method, path string, body any) {
	s.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		s.Fatal(err)
	}
	rec := httptest.NewRecorder()
	s.Fleet().Node(n).Handler().ServeHTTP(rec,
		httptest.NewRequestWithContext(s.within(), method, path, bytes.NewReader(text)))
	if rec.Code != http.StatusOK {
		s.Fatalf("step %q: %s %s: %d %s", s.step_, method, path, rec.Code, rec.Body)
	}
}

// state is what a location on a pageserver is doing.
func (s *script) state(n neon.NodeID, shard neon.ShardID) simpageserver.State {
	at, _ := s.Fleet().Node(n).Location(shard)
	return at.State
}

// TestLazyAttachActivation has the steps of test_lazy_attach_activation. It takes a location
// away by hand and restarts the pageserver. Then it attaches the location lazily. A
// pageserver does not do that if it has an attached location of the shard: then it is
// active at once.
func TestLazyAttachActivation(t *testing.T) {
	for name, activate := range map[string]func(*script, neon.ShardID){
		"branch": func(s *script, lazy neon.ShardID) {
			s.timeline(0, 2, 0, lazy)
			if at := s.state(1, lazy); at != simpageserver.Active {
				s.Errorf("it is %s after a branch was made", at)
			}
		},
		"delete": func(s *script, lazy neon.ShardID) {
			s.place(1, lazy, neon.LocationConfig{Mode: neon.Detached}) // as part of the deletion
			s.Oracle().Deleting(lazy.Tenant)
			s.onNode(1, http.MethodDelete, "/v1/tenant/"+lazy.String(), nil)
			s.pass(2 * time.Minute)
			if at := s.state(1, lazy); at != "" {
				s.Errorf("it is %s after it was deleted", at)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, lazy := takenAway(t, (*reconciler.Options).BesideNeonLocal)
				g := s.hook(lazy, 1)
				s.onNode(1, http.MethodPut,
					"/v1/tenant/"+lazy.String()+"/location_config?lazy=true",
					neon.LocationConfig{Mode: neon.AttachedSingle, Generation: &g})
				for range 5 {
					if at := s.state(1, lazy); at != simpageserver.Attaching {
						t.Fatalf("it is %s", at)
					}
					s.pass(500 * time.Millisecond)
				}
				activate(s, lazy)
			})
		})
	}
	t.Run("not beside neon_local", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, lazy := takenAway(t, nil)
			if at := s.state(1, lazy); at != simpageserver.Attaching {
				t.Errorf("it is %q, and not attached again at once", at)
			}
		})
	})
}

// takenAway is the first half of it: a tenant whose location was taken away, and its
// pageserver restarted, a few seconds ago.
func takenAway(t *testing.T, tune func(*reconciler.Options)) (s *script, lazy neon.ShardID) {
	s = &script{T: t, Cluster: testcluster.Run(t, testcluster.Builder{
		Mode: testcluster.Virtual, Seed: 1, Tune: tune,
	})}
	lazy, initial := shardOf(0, 0, 0), shardOf(1, 0, 0)
	s.create(1, 0, neon.Attached(0))
	s.timeline(1, 1, -1, initial)
	s.create(0, 0, neon.Attached(0))
	s.timeline(0, 0, -1, lazy)
	s.place(1, lazy, neon.LocationConfig{Mode: neon.Detached})
	node := s.Fleet().Node(1)
	if err := node.Stop(s.within()); err != nil {
		t.Fatal(err)
	}
	node.SetBehaviour(simpageserver.Behaviour{LazyActivation: time.Hour})
	s.pageserver(1)
	s.verdicts()
	s.eventually("the initial tenant is active", func(context.Context) error {
		if at := s.state(1, initial); at != simpageserver.Active {
			return fmt.Errorf("it is %s", at)
		}
		return nil
	})
	s.pass(3 * time.Second)
	return s, lazy
}
