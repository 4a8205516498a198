package simpageserver

import (
	"math/rand/v2"
	"testing"

	"quorate/api/neon"
)

// A parent that gets a new generation while it is being split may be split again
// before the first split notices. The first one must not end the second one's claim:
// the parent would stay in progress for ever once the second one fails.
func TestASplitThatWasOvertakenLeavesItsParentAlone(t *testing.T) {
	c := newCore(1, NewStore(StoreOptions{}), rand.New(rand.NewPCG(1, 1)))
	parent := shardOf(0)
	parent.Count = 2
	attach := func(g neon.Generation) {
		t.Helper()
		ch := &locationChange{shard: parent, mode: modeSingle, gen: g, hasGen: true}
		_, done, f := c.begin(0, ch)
		if f != nil {
			t.Fatal(f)
		}
		if !done {
			c.finish(0, ch)
		}
	}
	begin := func() *splitting {
		t.Helper()
		w, f := beginSplit(parent, c.slots[parent], neon.ShardSplitRequest{Count: 4})
		if f != nil {
			t.Fatal(f)
		}
		return w
	}
	advance := func(w *splitting, to SplitStage) {
		t.Helper()
		for w.stage < to {
			if _, f := w.advance(0, c); f != nil {
				t.Fatal(f)
			}
		}
	}

	attach(1)
	first := begin()
	advance(first, SplitIndexed)
	attach(2)
	second := begin()
	advance(second, SplitLinked)
	if _, f := first.advance(0, c); f == nil {
		t.Fatal("a split went on although its parent has another generation")
	}
	first.giveUp(0, c)
	if !c.slots[parent].busy {
		t.Fatal("the first split freed the slot that the second one holds")
	}
	second.giveUp(0, c)
	if s := c.slots[parent]; s.busy || s.splitting != nil {
		t.Fatal("the parent stays in progress after its split has failed")
	}
}
