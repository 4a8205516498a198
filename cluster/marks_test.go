package cluster

import (
	"testing"

	"quorate/cluster/internal/store"
)

func TestTheLastLeaderStaysInTheMark(t *testing.T) {
	written := store.Mark{Term: 2, Index: 7, Leader: "a"}
	for name, test := range map[string]struct {
		now     store.Mark
		leader  string
		changed bool
	}{
		"nobody leads":        {store.Mark{Term: 2, Index: 7}, "a", false},
		"nobody in a term":    {store.Mark{Term: 3, Index: 7}, "a", true},
		"another leads":       {store.Mark{Term: 2, Index: 7, Leader: "b"}, "b", true},
		"it has come on":      {store.Mark{Term: 2, Index: 8, Leader: "a"}, "a", true},
		"nothing has changed": {written, "a", false},
	} {
		got, changed := succeeds(test.now, written)
		if got.Leader != test.leader || changed != test.changed {
			t.Errorf("%s: %+v, %t", name, got, changed)
		}
	}
}
