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
type table[R any] struct {
	tree   *btree.BTreeG[R]
	sum    uint64
	tag    byte                   // keeps equal bytes of two tables apart
	encode func([]byte, R) []byte // all fields, as in a snapshot
}

func newTable[R any](
	tag byte, less func(a, b R) bool, encode func([]byte, R) []byte,
) table[R] {
	return table[R]{tree: tree(less), tag: tag, encode: encode}
}

func (t *table[R]) copy() table[R] {
	c := *t
	c.tree = t.tree.Copy()
	return c
}

// Set inserts or replaces a record and returns the one that was there.
func (t *table[R]) Set(r R) (last R, had bool) {
	if last, had = t.tree.Set(r); had {
		t.sum -= t.hash(last)
	}
	t.sum += t.hash(r)
	return last, had
}

// Load is Set for records that come in order.
func (t *table[R]) Load(r R) {
	if last, had := t.tree.Load(r); had {
		t.sum -= t.hash(last)
	}
	t.sum += t.hash(r)
}

// Delete forgets a record and returns it.
func (t *table[R]) Delete(key R) (last R, had bool) {
	if last, had = t.tree.Delete(key); had {
		t.sum -= t.hash(last)
	}
	return last, had
}

// Get finds a record.
func (t *table[R]) Get(key R) (R, bool) { return t.tree.Get(key) }

// Scan calls f for every record in order until it says stop.
func (t *table[R]) Scan(f func(R) bool) { t.tree.Scan(f) }

// Ascend is Scan, beginning with the first record that is not less than pivot.
func (t *table[R]) Ascend(pivot R, f func(R) bool) { t.tree.Ascend(pivot, f) }

// Len is the number of records.
func (t *table[R]) Len() int { return t.tree.Len() }

func (t *table[R]) hash(r R) uint64 {
	return hashOf(t.tag, func(b []byte) []byte { return t.encode(b, r) })
}

// walked is what sum has to be.
func (t *table[R]) walked() (sum uint64) {
	t.tree.Scan(func(r R) bool { sum += t.hash(r); return true })
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
