package fsm

import "github.com/tidwall/btree"

// recent remembers the newest `limit` values by key and forgets the oldest. Like
// the other parts of State it is copied in O(1).
type recent[V any] struct {
	byKey *btree.BTreeG[aged[V]]
	byAge *btree.BTreeG[aged[V]]
	next  uint64
	limit int

	// sum is that of the hashes of each value with the one before it, so that it tells
	// the order as well, whatever the ages are.
	sum    uint64
	tag    byte
	encode func([]byte, V) []byte
}

type aged[V any] struct {
	value V
	age   uint64 // position in the order of arrival
}

func newRecent[V any](
	limit int, tag byte, less func(a, b V) bool, encode func([]byte, V) []byte,
) recent[V] {
	return recent[V]{
		byKey: tree(func(a, b aged[V]) bool { return less(a.value, b.value) }),
		byAge: tree(func(a, b aged[V]) bool { return a.age < b.age }),
		limit: limit, tag: tag, encode: encode,
	}
}

func (m *recent[V]) copy() recent[V] {
	c := *m
	c.byKey, c.byAge = m.byKey.Copy(), m.byAge.Copy()
	return c
}

func (m *recent[V]) find(key V) (V, bool) {
	a, ok := m.byKey.Get(aged[V]{value: key})
	return a.value, ok
}

// first finds the value with the least key that is not below that of v.
func (m *recent[V]) first(v V) (found V, ok bool) {
	m.byKey.Ascend(aged[V]{value: v}, func(a aged[V]) bool {
		found, ok = a.value, true
		return false
	})
	return found, ok
}

// add makes v the newest value; one with the same key is replaced.
func (m *recent[V]) add(v V) {
	if last, had := m.byKey.Get(aged[V]{value: v}); had {
		m.remove(last)
	}
	a := aged[V]{value: v, age: m.next}
	m.next++
	newest, some := m.byAge.Max()
	m.sum += m.hash(newest.value, some, v)
	m.byKey.Set(a)
	m.byAge.Set(a)
	for m.byAge.Len() > m.limit {
		oldest, _ := m.byAge.Min()
		m.remove(oldest)
	}
}

func (m *recent[V]) remove(a aged[V]) {
	var before, after aged[V]
	var older, newer bool
	m.byAge.Descend(a, func(x aged[V]) bool {
		if x.age < a.age {
			before, older = x, true
		}
		return !older
	})
	m.byAge.Ascend(a, func(x aged[V]) bool {
		if x.age > a.age {
			after, newer = x, true
		}
		return !newer
	})
	m.sum -= m.hash(before.value, older, a.value)
	if newer {
		m.sum += m.hash(before.value, older, after.value) - m.hash(a.value, true, after.value)
	}
	m.byAge.Delete(a)
	m.byKey.Delete(a)
}

// hash is that of a value and of the one before it, if there is one.
func (m *recent[V]) hash(before V, older bool, v V) uint64 {
	return hashOf(m.tag, func(b []byte) []byte {
		if b = append(b, boolByte(older)); older {
			b = m.encode(b, before)
		}
		return m.encode(b, v)
	})
}

// walked is what sum has to be.
func (m *recent[V]) walked() (sum uint64) {
	var before V
	older := false
	m.values(func(v V) bool {
		sum += m.hash(before, older, v)
		before, older = v, true
		return true
	})
	return sum
}

// values calls f from the oldest to the newest until it says stop.
func (m *recent[V]) values(f func(V) bool) {
	m.byAge.Scan(func(a aged[V]) bool { return f(a.value) })
}
