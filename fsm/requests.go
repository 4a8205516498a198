package fsm

import (
	"bytes"

	"quorate/api/neon"
)

// RequestID names one client request. A retry whose first try may have been
// committed carries the same id and is recognised. The zero id is never kept.
type RequestID [16]byte

// keptRequests bounds the memory for recognising retries: at 5,000 named writes
// a second it reaches back six seconds, longer than any election.
const keptRequests = 32768

// request is one command that was applied under a request id. A client request
// may take several commands, so the kind is part of the key.
type request struct {
	id    RequestID
	kind  Kind
	index uint64 // log index at which it was applied
}

func newRequests() memory[request] {
	return newMemory(keptRequests, func(a, b request) bool {
		if c := bytes.Compare(a.id[:], b.id[:]); c != 0 {
			return c < 0
		}
		return a.kind < b.kind
	})
}

// keptGraves bounds the memory of deleted tenants.
const keptGraves = 1 << 20

// grave is what is remembered of a deleted tenant: the largest generation any of
// its shards ever had. A tenant created again under the same id starts above it,
// so that a pageserver which slept through the deletion is never told that its
// old number is valid.
type grave struct {
	tenant     neon.TenantID
	generation neon.Generation
}

func newGraves() memory[grave] {
	return newMemory(keptGraves,
		func(a, b grave) bool { return compareIDs(a.tenant, b.tenant) < 0 })
}

// Done tells at which index a command of that type was applied under a request id,
// if that is remembered.
func (s *State) Done(id RequestID, c Command) (index uint64, ok bool) {
	if id == (RequestID{}) {
		return 0, false
	}
	q, ok := s.done.find(request{id: id, kind: c.kind()})
	return q.index, ok
}
