package fsm

import (
	"bytes"
	"iter"
	"math"

	"quorate/api/neon"
)

// RequestID names one request of a client, as it came to the cluster, or a part of one.
// At most one command is committed for it. A try that follows one whose command may have
// been committed carries the same id and is recognised. The zero id is never kept.
type RequestID [16]byte

// keptRequests bounds the memory for recognising retries: at 5,000 named writes
// a second it reaches back six seconds, longer than any election.
const keptRequests = 32768

// request is one command that was applied under a request id. Versions before the
// second level gave several commands one id, so the kind is part of the key.
type request struct {
	id    RequestID
	kind  Kind
	index uint64 // log index at which it was applied
}

func newRequests() recent[request] {
	return newRecent(keptRequests, tagRequest, func(a, b request) bool {
		if c := bytes.Compare(a.id[:], b.id[:]); c != 0 {
			return c < 0
		}
		return a.kind < b.kind
	}, appendRequest)
}

const (
	// keptKeys bounds the number of requests under keys of clients that are remembered.
	keptKeys = 1 << 16

	// KeyMillis is for how long they are, in milliseconds.
	KeyMillis = 24 * 60 * 60 * 1000
)

// KeyedRequest is a request that a client has sent under a key of its own. Whether it was
// carried out is kept for as long as the key.
type KeyedRequest struct {
	Key   RequestID // names the key, and the request in the log
	Print [16]byte  // of the request: the same key with another one is a mistake
	At    int64     // Unix time in milliseconds
	Done  uint64    // the index of its entry; 0: it was not carried out
}

// Expired reports whether a key may be used for another request.
func (k *KeyedRequest) Expired(now int64) bool { return now-k.At >= KeyMillis }

func newKeyed() recent[KeyedRequest] {
	return newRecent(keptKeys, tagKeyed,
		func(a, b KeyedRequest) bool { return bytes.Compare(a.Key[:], b.Key[:]) < 0 },
		appendKeyed)
}

// keptTimelineTombstones bounds the number of deleted timelines that are remembered.
const keptTimelineTombstones = 1 << 16

// timelineTombstone is what is remembered of a deleted timeline: the log index at which
// the deletion ended. A creation that was begun before must not be acknowledged.
type timelineTombstone struct {
	ref   neon.TimelineRef
	index uint64
}

func newTimelineTombstones() recent[timelineTombstone] {
	return newRecent(keptTimelineTombstones, tagTimelineTombstone,
		func(a, b timelineTombstone) bool { return compareRefs(a.ref, b.ref) < 0 },
		appendTimelineTombstone)
}

// keptTenantTombstones bounds the number of deleted tenants that are remembered.
const keptTenantTombstones = 1 << 20

// tenantTombstone is what is remembered of a deleted tenant: the largest generation
// that any of its shards ever had. A tenant that is created again under the same id
// starts above it. So a pageserver that was down during the deletion is never told
// that its old number is valid.
type tenantTombstone struct {
	tenant     neon.TenantID
	generation neon.Generation
}

func newTenantTombstones() recent[tenantTombstone] {
	return newRecent(keptTenantTombstones, tagTenantTombstone,
		func(a, b tenantTombstone) bool { return compareIDs(a.tenant, b.tenant) < 0 },
		appendTombstone)
}

// Done finds the index at which a command was applied under a request id, if that is
// remembered.
func (s *State) Done(id RequestID) (index uint64, ok bool) {
	if id == (RequestID{}) {
		return 0, false
	}
	if k, keyed := s.Keyed(id); keyed {
		return k.Done, k.Done != 0
	}
	s.done.byKey.Ascend(aged[request]{value: request{id: id}}, func(a aged[request]) bool {
		index, ok = a.value.index, a.value.id == id
		return false
	})
	return index, ok
}

// before finds the index at which a command was applied under the same id.
func (s *State) before(id RequestID, kind Kind) (index uint64, ok bool) {
	if id == (RequestID{}) {
		return 0, false
	}
	if k, keyed := s.Keyed(id); keyed {
		return k.Done, k.Done != 0
	}
	q, ok := s.done.find(request{id: id, kind: kind})
	return q.index, ok
}

// Keyed finds the request that was begun under a key.
func (s *State) Keyed(key RequestID) (KeyedRequest, bool) {
	return s.keyed.find(KeyedRequest{Key: key})
}

// TimelineDeleted finds the index at which the last deletion of a timeline ended, if that
// is remembered.
func (s *State) TimelineDeleted(ref neon.TimelineRef) (index uint64, ok bool) {
	g, ok := s.deletedTimelines.find(timelineTombstone{ref: ref})
	return g.index, ok
}

// firstGeneration is the number from which a new tenant counts, at least the one asked for,
// and whether an earlier tenant of that id is remembered.
func (s *State) firstGeneration(
	id neon.TenantID, asked neon.Generation,
) (g neon.Generation, remembered bool) {
	g = max(asked, s.generationFloor())
	if old, ok := s.deletedTenants.find(tenantTombstone{tenant: id}); ok {
		return max(g, old.generation), true
	}
	return g, false
}

// checkFirst refuses a tenant for which too few numbers would be left: because of the
// number it is to count from, or of those that an earlier tenant of that id has used.
func (s *State) checkFirst(id neon.TenantID, asked neon.Generation) Result {
	if !s.bounded() {
		return Result{}
	}
	if r := refuseBy(asked.Check()); r.Err != nil {
		return r
	}
	if first, _ := s.firstGeneration(id, asked); first > neon.MaxGeneration {
		return refuse(neon.PreconditionFailed,
			"Generations of tenant %s are used up: create it under another id", id)
	}
	return Result{}
}

// bounded reports whether numbers from outside are checked. Below the level some member
// may not do so.
func (s *State) bounded() bool { return s.AgreedLevel() >= secondLevel }

// generationFloor is the number from which a tenant without any history counts. After a
// recovery it may have had one that the snapshot did not know.
func (s *State) generationFloor() neon.Generation {
	return neon.Generation(min(s.Epoch, math.MaxUint32/RecoveryGap) * RecoveryGap)
}

// Outcomes yields the outcomes of operations, the oldest first.
func (s *State) Outcomes() iter.Seq[Outcome] { return s.outcomes.values }

// KeepsOutcomes reports whether the outcomes of operations are recorded. Below the level
// some member may not know them.
func (s *State) KeepsOutcomes() bool { return s.AgreedLevel() >= secondLevel }
