package split

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

func (h *holding) Return(context.Context, string) (string, bool, error) { return "", false, nil }

// What a pageserver does after the time that it was given counts for nothing.
func TestSplitThatTakesTooLongIsRolledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 2, Options{RequestTimeout: 5 * time.Second})
		f.after = func(neon.ShardID) error { return neon.Errorf(neon.Timeout, "timeout") }
		lead(t, p, func() {
			if _, err := p.Split(t.Context(), tenantOne,
				neon.ShardSplitRequest{Count: 4}); neon.CodeOf(err) != neon.Conflict {
				t.Error(err)
			}
		})
		if tenant, _ := p.Log.State().Tenant(tenantOne); tenant.Count != 2 ||
			p.Log.State().Splitting(tenantOne) {
			t.Errorf("%+v", tenant)
		}
	})
}

func TestSplitOfADeposedLeaderIsRolledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 2, Options{})
		c, err := decideSplit(p.Log.State(), tenantOne, neon.ShardSplitRequest{Count: 4})
		if err != nil {
			t.Fatal(err)
		}
		f.log.Must(c)
		waiter := make(chan error)
		go func() {
			_, err := p.await(t.Context(),
				fsm.Split{Tenant: tenantOne, Count: 4, Began: p.Log.State().Index})
			waiter <- err
		}()
		synctest.Wait()
		f.log.Must(fsm.SetLeader{Leader: fsm.Leader{ServerID: "next", Term: 9}})
		lead(t, p, func() {
			if err := <-waiter; err == nil ||
				!strings.Contains(err.Error(), "Unexpected child shard count") {
				t.Error(err)
			}
		})
		if got := sorted(f.detached); !slices.Equal(got, neon.ShardIDs(tenantOne, 4)) {
			t.Errorf("detached %v", got)
		}
		if tenant, _ := p.Log.State().Tenant(tenantOne); tenant.Count != 2 ||
			p.Log.State().Splitting(tenantOne) || len(f.asked) != 0 {
			t.Errorf("%+v, asked %v", tenant, f.asked)
		}
	})
}

// A pageserver that answers but does not let go of a child keeps its tenant frozen:
// no other shard may have what that child still writes to.
func TestTenantIsUnfrozenOnceItsChildrenAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 1, Options{})
		f.before = func(neon.ShardID) error { return errors.New("no") }
		f.holds = true
		lead(t, p, func() {
			if _, err := p.Split(t.Context(), tenantOne,
				neon.ShardSplitRequest{Count: 2}); neon.CodeOf(err) != neon.Conflict {
				t.Error(err)
			}
			<-time.After(time.Hour)
			if !p.Log.State().Splitting(tenantOne) {
				t.Error("it was unfrozen before")
			}
			f.mu.Lock()
			f.holds = false
			f.mu.Unlock()
			<-time.After(time.Minute)
			if p.Log.State().Splitting(tenantOne) {
				t.Error("it stays frozen")
			}
		})
	})
}

// An earlier split that was aborted left a timeline under the name of a child, which
// was deleted since.
func TestDeletedTimelinesDoNotComeBackWithASplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 1, Options{})
		parent := neon.ShardIDs(tenantOne, 1)[0]
		child := parent.Children(2)[1]
		f.timelines[parent] = []neon.TimelineID{{1}}
		f.timelines[child] = []neon.TimelineID{{9}, {1}}
		lead(t, p, func() {
			if _, err := p.Split(t.Context(), tenantOne,
				neon.ShardSplitRequest{Count: 2}); err != nil {
				t.Error(err)
			}
		})
		if !slices.Equal(f.deleted, []neon.ShardID{child}) ||
			slices.Contains(f.timelines[child], neon.TimelineID{9}) {
			t.Errorf("deleted on %v, left are %v", f.deleted, f.timelines[child])
		}
	})
}
