package fsm

import (
	"bytes"
	"iter"
	"math"

	"quorate/api/neon"
)

// RequestID names one change that a client's request makes. A later try of the request has
// the same ids for the same changes, and what was done is recognised. The zero id is never
// kept.
type RequestID [16]byte

// keptRequests bounds the memory for recognising retries: at 5,000 named writes
// a second it reaches back six seconds, longer than any election.
const keptRequests = 32768

// request is one command that was applied under a request id. Below the second level a
// client's request had one id, and several commands, so the kind is part of the key.
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
		func(a, b tenantTombstone) bool { return a.tenant.Less(b.tenant) },
		appendTombstone)
}

// Done finds the index at which a command was applied under a request id, if that is
// remembered. Below the second level that proves nothing: it may have been taken for nothing,
// or taken back.
func (s *State) Done(id RequestID) (index uint64, ok bool) {
	if id == (RequestID{}) || !s.NamesEachChange() {
		return 0, false
	}
	q, ok := s.done.first(request{id: id})
	if !ok || q.id != id {
		return 0, false
	}
	return q.index, true
}

// NamesEachChange reports whether a request id names one change only, and whether requests
// that leave nothing else in the log are noted there. Below the level some member may not
// do so.
func (s *State) NamesEachChange() bool { return s.AgreedLevel() >= secondLevel }

// doneBefore finds the index at which a command was applied before, under the same id.
func (s *State) doneBefore(id RequestID, c Command) (index uint64, ok bool) {
	if s.NamesEachChange() {
		return s.Done(id)
	}
	q, ok := s.done.find(request{id: id, kind: c.kind()})
	return q.index, ok && id != (RequestID{})
}

// NoteRequest is what a request leaves in the log that has changed nothing there, but has
// changed something on pageservers: that it was done.
type NoteRequest struct{}

// Level is that of the version which brought it.
func (NoteRequest) Level() uint64 { return secondLevel }

func (NoteRequest) apply(*txn) Result { return Result{} }

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
