package fsm

import "github.com/tidwall/btree"

// recent remembers the newest `limit` values by key and forgets the oldest. Like
// the other parts of State it is copied in O(1).
type recent[V any] struct {
	byKey *btree.BTreeG[aged[V]]
	byAge *btree.BTreeG[aged[V]]
	next  uint64
	limit int
}

type aged[V any] struct {
	value V
	age   uint64 // position in the order of arrival
}

func newRecent[V any](limit int, less func(a, b V) bool) recent[V] {
	return recent[V]{
		byKey: tree(func(a, b aged[V]) bool { return less(a.value, b.value) }),
		byAge: tree(func(a, b aged[V]) bool { return a.age < b.age }),
		limit: limit,
	}
}

func (m *recent[V]) copy() recent[V] {
	return recent[V]{byKey: m.byKey.Copy(), byAge: m.byAge.Copy(), next: m.next, limit: m.limit}
}

func (m *recent[V]) find(key V) (V, bool) {
	a, ok := m.byKey.Get(aged[V]{value: key})
	return a.value, ok
}

// add makes v the newest value; one with the same key is replaced.
func (m *recent[V]) add(v V) {
	a := aged[V]{value: v, age: m.next}
	m.next++
	if last, had := m.byKey.Set(a); had {
		m.byAge.Delete(last)
	}
	m.byAge.Set(a)
	for m.byAge.Len() > m.limit {
		old, _ := m.byAge.PopMin()
		m.byKey.Delete(old)
	}
}

// values calls f from the oldest to the newest until it says stop.
func (m *recent[V]) values(f func(V) bool) {
	m.byAge.Scan(func(a aged[V]) bool { return f(a.value) })
}
