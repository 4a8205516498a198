package storagecontroller

import "testing"

// A process gives memory back when it has come to rest, and only if that is worth a collection.
func TestAProcessAtRestReturnsMemory(t *testing.T) {
	before := memory{allocated: 1 << 30}
	rests := func(live, garbage, free uint64) memory {
		return memory{allocated: 1<<30 + restBytes, live: live, objects: live + garbage, free: free}
	}
	for name, c := range map[string]struct {
		now  memory
		want bool
	}{
		"at work":                          {memory{allocated: 2 << 30, free: 1 << 30}, false},
		"much garbage":                     {rests(10<<20, 12<<20, 0), true},
		"much that is free":                {rests(10<<20, 0, 12<<20), true},
		"little of either":                 {rests(10<<20, 4<<20, 3<<20), false},
		"little of a large heap":           {rests(1<<30, 200<<20, 100<<20), false},
		"much of a large heap":             {rests(1<<30, 600<<20, 0), true},
		"less than at the last collection": {memory{allocated: 1 << 30, live: 9 << 20}, false},
	} {
		if got := c.now.returns(before); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	m := readMemory()
	if m.allocated == 0 || m.objects == 0 {
		t.Errorf("the runtime says %+v", m)
	}
}

// A large heap has less garbage beside it than a small one.
func TestALargeHeapHasLessGarbage(t *testing.T) {
	share := fullShare
	for _, c := range []struct {
		live uint64
		want int
	}{
		{10 << 20, fullShare}, {60 << 20, fullShare}, {400 << 20, largeShare},
		{60 << 20, largeShare}, {40 << 20, fullShare},
	} {
		if share = (memory{live: c.live}).garbageShare(share); share != c.want {
			t.Errorf("%d bytes in use: %d %%, want %d %%", c.live, share, c.want)
		}
	}
}
