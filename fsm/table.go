package fsm

import (
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/tidwall/btree"
)

// DigestScheme names what Digest is computed of. Raise it with every change of what the
// encoding of a record, or Digest itself, holds: hashes of two schemes are not compared,
// so that two versions in one cluster do not take each other for wrong.
const DigestScheme = 1

// table is an ordered set of records together with the sum of their hashes, which every
// change keeps up. Records can be changed in no other way.
type table[K, R any] struct {
	tree   *btree.BTreeG[row[K, R]]
	sum    uint64
	tag    byte // keeps equal bytes of two tables apart
	key    func(*R) K
	encode func([]byte, *R) []byte // all fields, as in a snapshot
}

// row is a record with its key. Versions of a table share records, so that a copy of a
// part of the tree is a copy of keys, and a search reads only those.
type row[K, R any] struct {
	key    K
	record *R // never modified
}

func newTable[K, R any](
	tag byte, key func(*R) K, less func(a, b K) bool, encode func([]byte, *R) []byte,
) table[K, R] {
	return table[K, R]{
		tree: tree(func(a, b row[K, R]) bool { return less(a.key, b.key) }),
		tag:  tag, key: key, encode: encode,
	}
}

func (t *table[K, R]) copy() table[K, R] {
	c := *t
	c.tree = t.tree.Copy()
	return c
}

// Set inserts or replaces a record and returns the one that was there.
func (t *table[K, R]) Set(r R) (last R, had bool) {
	next := &r
	was, had := t.tree.Set(row[K, R]{t.key(next), next})
	return t.replaced(was, had, next)
}

// Load is Set for records that come in order.
func (t *table[K, R]) Load(r R) {
	next := &r
	was, had := t.tree.Load(row[K, R]{t.key(next), next})
	t.replaced(was, had, next)
}

func (t *table[K, R]) replaced(was row[K, R], had bool, next *R) (last R, _ bool) {
	t.sum += t.hash(next)
	if !had {
		return last, false
	}
	t.sum -= t.hash(was.record)
	return *was.record, true
}

// Delete forgets a record and returns it.
func (t *table[K, R]) Delete(key K) (last R, had bool) {
	was, had := t.tree.Delete(row[K, R]{key: key})
	if !had {
		return last, false
	}
	t.sum -= t.hash(was.record)
	return *was.record, true
}

// Get finds a record.
func (t *table[K, R]) Get(key K) (r R, ok bool) {
	if found, ok := t.tree.Get(row[K, R]{key: key}); ok {
		return *found.record, true
	}
	return r, false
}

// Scan calls f for every record in order until it says stop.
func (t *table[K, R]) Scan(f func(R) bool) {
	t.tree.Scan(func(r row[K, R]) bool { return f(*r.record) })
}

// Ascend is Scan, beginning with the first record whose key is not less than from.
func (t *table[K, R]) Ascend(from K, f func(R) bool) {
	t.tree.Ascend(row[K, R]{key: from}, func(r row[K, R]) bool { return f(*r.record) })
}

// Len is the number of records.
func (t *table[K, R]) Len() int { return t.tree.Len() }

func (t *table[K, R]) hash(r *R) uint64 {
	return hashOf(t.tag, func(b []byte) []byte { return t.encode(b, r) })
}

// walked is what sum has to be.
func (t *table[K, R]) walked() (sum uint64) {
	t.tree.Scan(func(r row[K, R]) bool { sum += t.hash(r.record); return true })
	return sum
}

var encodings = sync.Pool{New: func() any { return new([]byte) }}

// hashOf is the hash of what write appends, in a table.
func hashOf(tag byte, write func([]byte) []byte) uint64 {
	b := encodings.Get().(*[]byte)
	*b = write(append((*b)[:0], tag))
	sum := xxhash.Sum64(*b)
	encodings.Put(b)
	return sum
}
