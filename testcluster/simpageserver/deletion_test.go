package simpageserver

import (
	"strings"
	"testing"

	"quorate/api/neon"
)

func TestI14ReportsLostLayers(t *testing.T) {
	for name, lie := range map[string]bool{"honest validate": false, "lying validate": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{Store: NewStore(StoreOptions{WALRate: 1 << 20})})
			a, b := w.node(1), w.node(2)
			shard := shardOf(0)
			w.attach(a, shard)
			w.timeline(a, shard, 1)
			w.growLayers(a, shard, 3)
			w.attach(b, shard) // loads the index that names the layers
			w.growLayers(b, shard, 4)
			if lie {
				w.auth.mu.Lock()
				w.auth.validate = func(
					neon.ShardID, neon.Generation,
				) (bool, bool) {
					return true, true
				}
				w.auth.mu.Unlock()
			}
			if err := a.Compact(shard); err != nil {
				t.Fatal(err)
			}
			if err := a.FlushDeletions(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !lie {
				w.silent()
				return
			}
			w.reported(13, 14)
			w.put(a, shard, neon.Detached, 0)
			if err := w.fleet.CheckQuiescent(); err == nil ||
				!strings.Contains(err.Error(), "I14") {
				t.Errorf("the loss is not seen at rest: %v", err)
			}
		})
	}
}

// The controller answers a validate by shard. What an earlier generation has listed is
// dropped, also when the same pageserver got the next ones.
func TestListsOfEarlierGenerationsAreDropped(t *testing.T) {
	w := newWorld(t, Options{Store: NewStore(StoreOptions{WALRate: 1 << 20})})
	a, b := w.node(1), w.node(2)
	shard := shardOf(0)
	w.attach(a, shard)
	w.timeline(a, shard, 1)
	for round := range 2 {
		if round > 0 {
			w.auth.grant(shard, b.ID())
			w.attach(a, shard)
		}
		w.growLayers(a, shard, 3)
		if err := a.Compact(shard); err != nil { // listed in this generation
			t.Fatal(err)
		}
	}
	if err := a.FlushDeletions(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.silent()
	executed := 0
	for _, e := range w.fleet.Oracle().History() {
		if e.Kind == EventValidated && e.Note == "yes" {
			executed++
		}
	}
	if executed != 1 {
		t.Fatalf("%d lists were executed, want the one of the newest generation", executed)
	}
}

// A split that fails leaves children beside the parent. They name layers of the parent,
// which it may delete as long as the children are not the tenant.
func TestI14IsAboutTheShardsOfTheTenant(t *testing.T) {
	for name, committed := range map[string]bool{"aborted": false, "committed": true} {
		t.Run(name, func(t *testing.T) {
			parent := shardOf(0)
			w := newWorld(t, Options{
				Store:     NewStore(StoreOptions{WALRate: 1 << 20}),
				Behaviour: Behaviour{SplitFailsAt: SplitAttached},
				Oracle: NewOracle(OracleOptions{
					Serves: func(id neon.ShardID) bool { return committed || id == parent },
				}),
			})
			a := w.node(1)
			w.attach(a, parent)
			w.timeline(a, parent, 1)
			w.growLayers(a, parent, 3)
			for _, child := range parent.Children(2) {
				w.auth.grant(child, a.ID())
			}
			w.want(500, a, "PUT", "/v1/tenant/"+parent.String()+"/shard_split",
				neon.ShardSplitRequest{Count: 2})
			if err := a.Compact(parent); err != nil {
				t.Fatal(err)
			}
			if err := a.FlushDeletions(t.Context()); err != nil {
				t.Fatal(err)
			}
			if committed {
				w.reported(14)
			} else {
				w.silent()
			}
		})
	}
}
