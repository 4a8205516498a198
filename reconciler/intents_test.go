package reconciler

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

// refuser is a log that refuses the intents of some shards, whatever they are.
type refuser struct {
	*fsmtest.Log
	refused  map[neon.ShardID]bool
	proposed []int // intents of each entry
}

func (l *refuser) Propose(
	ctx context.Context, id fsm.RequestID, c fsm.Command,
) (r fsm.Result, err error) {
	if _, err := fsm.Encode(id, c); err != nil {
		return r, err
	}
	intents := c.(fsm.SetIntents).Intents
	l.proposed = append(l.proposed, len(intents))
	for _, in := range intents {
		if l.refused[in.Shard] {
			r.Refused = append(r.Refused, in.Shard)
		}
	}
	return r, ctx.Err()
}

func newRefuser(t *testing.T) (*refuser, *committer) {
	l := &refuser{Log: fsmtest.NewLog(), refused: make(map[neon.ShardID]bool)}
	return l, newCommitter(t.Context(), Deps{Log: l, Logger: slog.New(slog.DiscardHandler)})
}

func TestIntentsThatAreRefusedAreProposedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := newRefuser(t)
		good, bad := neon.Unsharded(neon.TenantID{1}), neon.Unsharded(neon.TenantID{2})
		l.refused[bad] = true
		tries := func(sequence uint64) (n int) {
			for range 3600 {
				before := len(l.proposed)
				refused := c.commit([]fsm.Intent{{Shard: bad, Sequence: sequence}})
				if len(refused) != 1 || refused[0] != bad {
					t.Fatalf("refused: %v", refused)
				}
				n += len(l.proposed) - before
				if refused := c.commit([]fsm.Intent{{Shard: good, Sequence: 1}}); refused != nil {
					t.Fatalf("%v waits too", refused)
				}
				elapse(time.Second)
			}
			return n
		}
		if n := tries(1); n < 12 || n > 30 {
			t.Errorf("proposed %d times in an hour", n)
		}
		if n := tries(2); n < 12 {
			t.Errorf("another decision is proposed %d times", n)
		}
		l.refused[bad] = false
		elapse(refusedMax)
		if refused := c.commit([]fsm.Intent{{Shard: bad, Sequence: 2}}); refused != nil {
			t.Errorf("still refused: %v", refused)
		}
		if len(c.refused) > 0 {
			t.Errorf("remembers %v", c.refused)
		}
	})
}

// A batch of shards with many secondaries is more than one entry takes.
func TestManyIntentsAreDividedIntoEntries(t *testing.T) {
	l, c := newRefuser(t)
	var many []neon.NodeID
	for i := range 1000 {
		many = append(many, neon.MaxNodeID-neon.NodeID(i))
	}
	var intents []fsm.Intent
	for i := range 1000 {
		intents = append(intents, fsm.Intent{
			Shard: neon.Unsharded(neon.TenantID{byte(i), byte(i >> 8)}), Sequence: 1 << 62,
			Attached: 1, Secondary: many, PreferredNode: many[0], Issue: true,
		})
	}
	data, err := fsm.Encode(fsm.RequestID{}, fsm.SetIntents{Intents: intents[:fitting(intents)]})
	if err != nil || len(data) > entryBytes {
		t.Errorf("an entry of %d bytes: %v", len(data), err)
	}
	if refused := c.commit(intents); refused != nil {
		t.Errorf("refused %d", len(refused))
	}
	total := 0
	for _, n := range l.proposed {
		total += n
	}
	if total != len(intents) || len(l.proposed) < 10 {
		t.Errorf("%d intents in %d entries", total, len(l.proposed))
	}
	if n := fitting([]fsm.Intent{{Secondary: make([]neon.NodeID, entryBytes)}}); n != 1 {
		t.Errorf("one that is too large is divided into %d", n)
	}
}

// What a term has no time for is not taken for committed: whoever goes on until nothing is
// left would do so for ever.
func TestWhatATermDoesNotCommitIsRefused(t *testing.T) {
	l, c := newRefuser(t)
	ctx, cancel := context.WithCancel(t.Context())
	c.ctx = ctx
	cancel()
	id := neon.ShardID{Count: 1}
	if refused := c.commit([]fsm.Intent{{Shard: id}}); len(refused) != 1 || refused[0] != id ||
		len(l.proposed) != 0 {
		t.Errorf("of %d entries %v are refused", len(l.proposed), refused)
	}
}
