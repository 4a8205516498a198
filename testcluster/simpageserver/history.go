package simpageserver

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"quorate/api/neon"
)

// EventKind says what happened.
type EventKind string

// The kinds of events in the oracle's history.
const (
	EventGranted    EventKind = "granted"    // the controller committed a generation
	EventReceived   EventKind = "received"   // a location change reached a pageserver
	EventApplied    EventKind = "applied"    // a location changed
	EventReattached EventKind = "reattached" // a location after a restart
	EventStarted    EventKind = "started"    // a pageserver process began
	EventEnded      EventKind = "ended"      // a pageserver process ended
	EventValidated  EventKind = "validated"  // the controller answered a validate
	EventNotified   EventKind = "notified"   // compute learned of a location
	EventDeleted    EventKind = "deleted"    // a tenant's objects were deleted
	EventViolation  EventKind = "violation"
)

// Event is one line of the oracle's history. Unused fields are zero.
type Event struct {
	At          time.Duration // since the oracle was made
	Kind        EventKind
	Node        neon.NodeID
	Incarnation uint32
	Shard       neon.ShardID
	Generation  neon.Generation
	Mode        neon.LocationMode
	Late        bool // the effect of a call whose caller had already gone
	Note        string
}

// MarshalJSON prints one history line with unused fields left out.
func (e Event) MarshalJSON() ([]byte, error) {
	line := struct {
		At          float64           `json:"at"`
		Kind        EventKind         `json:"kind"`
		Node        neon.NodeID       `json:"node,omitempty"`
		Incarnation uint32            `json:"incarnation,omitempty"`
		Shard       string            `json:"shard,omitempty"`
		Generation  neon.Generation   `json:"generation,omitempty"`
		Mode        neon.LocationMode `json:"mode,omitempty"`
		Late        bool              `json:"late,omitempty"`
		Note        string            `json:"note,omitempty"`
	}{
		At: e.At.Seconds(), Kind: e.Kind, Node: e.Node, Incarnation: e.Incarnation,
		Generation: e.Generation, Mode: e.Mode, Late: e.Late, Note: e.Note,
	}
	if e.Shard != (neon.ShardID{}) {
		line.Shard = e.Shard.String()
	}
	return json.Marshal(line)
}

// history is a ring of the last events.
type history struct {
	ring []Event
	next int
	full bool
}

func (h *history) add(e Event) {
	if len(h.ring) == 0 {
		return
	}
	h.ring[h.next] = e
	h.next++
	if h.next == len(h.ring) {
		h.next, h.full = 0, true
	}
}

func (h *history) events() []Event {
	if !h.full {
		return append([]Event(nil), h.ring[:h.next]...)
	}
	return append(append([]Event(nil), h.ring[h.next:]...), h.ring[:h.next]...)
}

// writeEvents writes events as JSON, one a line.
func writeEvents(w io.Writer, events []Event) error {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	for _, e := range events {
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("dump history: %w", err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("dump history: %w", err)
	}
	return nil
}

// Violation is one breach of an invariant.
type Violation struct {
	Invariant int // the n of In
	At        time.Duration
	Shard     neon.ShardID
	Node      neon.NodeID
	Text      string
}

func (v Violation) String() string {
	return fmt.Sprintf("I%d at %s: shard %s, node %s: %s", v.Invariant, v.At, v.Shard, v.Node,
		v.Text)
}

// maxViolations bounds the violations kept; more are only counted.
const maxViolations = 1000

// journal keeps what happened and what was found.
type journal struct {
	epoch      time.Time
	violations []Violation
	dropped    int
	late       int
	history    history
}

func newJournal(events int) *journal {
	return &journal{epoch: time.Now(), history: history{ring: make([]Event, events)}}
}

func (j *journal) record(e Event) {
	if len(j.history.ring) == 0 {
		return
	}
	e.At = time.Since(j.epoch)
	j.history.add(e)
}

func (j *journal) violate(
	n int, shard neon.ShardID, node neon.NodeID, format string, args ...any,
) {
	v := Violation{
		Invariant: n, At: time.Since(j.epoch), Shard: shard, Node: node,
		Text: fmt.Sprintf(format, args...),
	}
	j.record(Event{Kind: EventViolation, Shard: shard, Node: node, Note: v.String()})
	if len(j.violations) >= maxViolations {
		j.dropped++
		return
	}
	j.violations = append(j.violations, v)
}

// meant reports whether a questionable effect was meant by a caller that still
// waits. Otherwise it is only counted.
func (j *journal) meant(by source) bool {
	if by == byLate {
		j.late++
		return false
	}
	return true
}

func (j *journal) err() error {
	if len(j.violations) == 0 {
		return nil
	}
	errs := []error{fmt.Errorf("%d violated invariants", len(j.violations)+j.dropped)}
	for _, v := range j.violations[:min(10, len(j.violations))] {
		errs = append(errs, errors.New(v.String()))
	}
	return errors.Join(errs...)
}
