package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The tables as Digest tells them apart. A number is never used for another table.
const (
	tagState byte = iota + 1
	tagNode
	tagTenant
	tagShard
	tagRequest
	tagTenantTombstone
	tagSplit
	tagSafekeeper
	tagTimeline
	tagOp
	tagImport
	tagTimelineDelete
	tagOutcome
	tagTravel
)

// firstTables is how many tables DigestScheme 1 began with. One that came later counts
// once it holds something, so that versions without it compute the same.
const firstTables = 11

// Digest is a hash of the whole state: two replicas that applied the same entries have
// the same one, and two whose states differ have another one (but for one chance in
// 2^64). Unlike Hash it is kept up by every change, so that asking costs nothing, and it
// does not depend on how a state came to be. It is compared only with one of the same
// DigestScheme, and stands neither in the log nor in snapshots.
func (s *State) Digest() uint64 {
	return hashOf(tagState, func(b []byte) []byte {
		b = binary.AppendUvarint(b, s.Index)
		b = binary.AppendUvarint(b, s.Epoch)
		b = binary.AppendUvarint(b, s.level)
		b = appendBytes(b, s.ClusterID)
		b = appendBytes(b, s.Leader.ServerID)
		b = appendBytes(b, s.Leader.Address)
		b = binary.AppendVarint(b, s.Leader.StartedAt)
		b = binary.AppendUvarint(b, s.Leader.Term)
		for i, sum := range s.sums() {
			if i < firstTables || sum != 0 {
				b = binary.LittleEndian.AppendUint64(b, sum)
			}
		}
		return b
	})
}

func (s *State) sums() [firstTables + 2]uint64 {
	return [...]uint64{
		s.nodeSum, s.tenants.sum, s.shards.sum, s.done.sum, s.deletedTenants.sum, s.splits.sum,
		s.safekeeperSum, s.timelines.sum, s.ops.sum, s.imports.sum, s.deletes.sum, s.outcomes.sum,
		s.travels.sum,
	}
}

// walkedSums are the sums as they are found by walking over all records.
func (s *State) walkedSums() [firstTables + 2]uint64 {
	return [...]uint64{
		sumOf(tagNode, s.nodes), s.tenants.walked(), s.shards.walked(), s.done.walked(),
		s.deletedTenants.walked(), s.splits.walked(), sumOf(tagSafekeeper, s.safekeepers),
		s.timelines.walked(), s.ops.walked(), s.imports.walked(), s.deletes.walked(),
		s.outcomes.walked(), s.travels.walked(),
	}
}

// sums verifies that the digest is that of the records.
func (c *checker) sums() {
	if have, want := c.s.sums(), c.s.walkedSums(); have != want {
		c.fail("the digest of the state has drifted: %x, not %x", have, want)
	}
}

// hashCBOR is the hash of a record that has no encoding of its own.
func hashCBOR[R any](tag byte, r R) uint64 {
	return hashOf(tag, func(b []byte) []byte { return appendCBOR(b, r) })
}

func sumOf[R any](tag byte, records []R) (sum uint64) {
	for _, r := range records {
		sum += hashCBOR(tag, r)
	}
	return sum
}

func cborRecord[R any](b []byte, r *R) []byte { return appendCBOR(b, *r) }

func appendCBOR[R any](b []byte, r R) []byte {
	data, err := cbor.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("%T cannot be encoded: %v", r, err)) // as little as in a snapshot
	}
	return append(b, data...)
}
