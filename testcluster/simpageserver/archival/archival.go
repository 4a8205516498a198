// Package archival is how a pageserver archives one timeline, offloads it, and
// brings it back, as a machine whose steps others may come between. The simulated
// pageserver runs these steps, and a test runs all their interleavings.
//
// Whether a timeline is archived stands in its index. There are two copies of it in
// memory: what the next upload will say (dirty) and what the last completed one said
// (clean). An offloaded timeline is not in memory; the manifest lists it.
//
// Offloading sets in by itself and cannot be undone once the timeline is stopped, so
// something has to decide between it and a request to bring the timeline back. That
// is the queue of uploads: the offload closes it in the same step in which it sees
// that both copies say archived, and a request has to put its change into the open
// queue. Whoever comes second has changed nothing.
package archival

import "errors"

// Order is the order of the steps of an offload.
type Order uint8

// The orders. All but the first are wrong, each in its way.
const (
	// Arbiter looks at both copies and closes the queue in one step, and stops the
	// timeline only after that.
	Arbiter Order = iota

	// StopFirst stops the timeline, then looks whether it is archived.
	StopFirst

	// LookTwice looks once more, and closes the queue in a step after that.
	LookTwice

	// CleanOnly is as Arbiter, but looks only at what is uploaded.
	CleanOnly
)

// Errors of the steps.
var (
	// ErrClosed is met by a change that comes after the queue was closed. It may be
	// tried again.
	ErrClosed = errors.New("the queue of uploads is closed")

	// ErrBusy is met when another request deletes, offloads or brings the timeline back.
	ErrBusy = errors.New("another operation on the timeline is under way")

	// ErrNotArchived ends an offload.
	ErrNotArchived = errors.New("the timeline is not archived")
)

// Timeline is one timeline on a pageserver, with what of it is in remote storage.
// It is a plain value.
type Timeline struct {
	Loaded   bool // in memory; else it is offloaded
	Stopping bool // in memory, and of no use to anybody
	Dirty    bool // archived, as the next upload will say
	Clean    bool // archived, as the last completed upload said
	Closed   bool // the queue takes no more changes
	Taken    Guard
	Flying   bool // an upload is under way
	Flies    bool // archived, as it says

	Index    bool // archived, as remote storage has it
	Manifest bool // listed as offloaded in remote storage
}

// Guard says who may stop, drop or load a timeline: one at a time.
type Guard uint8

// The holders of the guard.
const (
	Free Guard = iota
	Offloading
	Loading // it is being brought back, and no change is taken until the manifest says so
	Deleting
	Splitting // its shard is, from before its index is copied to the children
)

// New is a timeline that has just been created.
func New() Timeline { return Timeline{Loaded: true} }

// Attached is a timeline as an attach finds it in remote storage.
func Attached(index, manifest bool) Timeline {
	return Timeline{Loaded: !manifest, Dirty: index, Clean: index, Index: index, Manifest: manifest}
}

// Active reports whether the timeline can be used.
func (t Timeline) Active() bool { return t.Loaded && !t.Stopping && !t.Dirty }

// Pending reports whether an upload is owed that has not begun.
func (t Timeline) Pending() bool { return t.Loaded && !t.Flying && t.Dirty != t.Clean }

// BeginUpload starts an upload of what the index should say now.
func (t *Timeline) BeginUpload() { t.Flying, t.Flies = true, t.Dirty }

// EndUpload completes it.
func (t *Timeline) EndUpload() {
	t.Index, t.Clean = t.Flies, t.Flies
	t.Flying, t.Flies = false, false
}

// Upload is both at once.
func (t *Timeline) Upload() {
	t.BeginUpload()
	t.EndUpload()
}

// Candidate reports whether the background work should offload the timeline.
func (t Timeline) Candidate() bool {
	return t.Loaded && !t.Stopping && t.Taken == Free && t.Clean && !t.Flying && !t.Pending()
}

// Offload is an offload under way. The zero value has not begun.
type Offload struct{ at uint8 }

// The steps of an offload, in the order in which they are taken.
const (
	decided uint8 = iota // it is a candidate
	guarded              // no other request may delete, offload or load it
	looked               // by LookTwice, which does not look again
	closed               // the queue drains
	gone                 // out of memory
	over
)

// Waits reports whether an offload can only wait for uploads.
func (o Offload) Waits(t Timeline) bool { return o.at == closed && (t.Flying || t.Pending()) }

// Done reports whether an offload has come to its end, whichever.
func (o Offload) Done() bool { return o.at == over }

// Next takes the next step. An error means that the offload has ended without having
// done anything, or so it should be.
func (o *Offload) Next(t *Timeline, order Order) error {
	switch o.at {
	case decided:
		if !t.Loaded || t.Taken != Free {
			o.at = over
			return ErrBusy
		}
		t.Taken, t.Stopping = Offloading, order == StopFirst
		o.at = guarded
	case guarded:
		switch {
		case !mayGo(*t, order):
			t.Taken, o.at = Free, over
			return ErrNotArchived
		case order == LookTwice:
			o.at = looked
		default:
			t.Closed, o.at = true, closed
		}
	case looked:
		t.Closed, o.at = true, closed
	case closed:
		if !o.Waits(*t) {
			*t = Timeline{
				Taken: Offloading, Dirty: t.Index, Clean: t.Index, Index: t.Index,
				Manifest: t.Manifest,
			}
			o.at = gone
		}
	case gone:
		t.Manifest, t.Taken = true, Free
		o.at = over
	}
	return nil
}

// mayGo is the look at whether a timeline is archived.
func mayGo(t Timeline, order Order) bool {
	if order == Arbiter {
		return t.Clean && t.Dirty && !t.Closed
	}
	return t.Clean
}

// Change is a request to archive a timeline or to bring it back.
type Change struct {
	Archive bool
	at      uint8
}

const (
	asked    uint8 = iota
	loading        // it is offloaded and being brought back
	loaded         // in memory again, the manifest still lists it
	queued         // the change is in the queue
	answered       // acknowledged
)

// Done reports whether the change was acknowledged.
func (c Change) Done() bool { return c.at == answered }

// Waits reports whether the change can only wait for uploads: its own, or one that
// says what was asked for since.
func (c Change) Waits(t Timeline) bool { return c.at == queued && (t.Flying || t.Pending()) }

// Next takes the next step. After an error the request has ended without having
// changed anything, and may be made again.
func (c *Change) Next(t *Timeline) error {
	switch c.at {
	case asked:
		switch {
		case t.Taken == Loading:
			return ErrBusy
		case t.Loaded:
			return c.enqueue(t)
		case c.Archive:
			c.at = answered // it is archived and offloaded
		case t.Taken != Free:
			return ErrBusy
		default:
			t.Taken, c.at = Loading, loading
		}
	case loading:
		*t = Timeline{
			Loaded: true, Taken: Loading, Dirty: t.Index, Clean: t.Index, Index: t.Index,
			Manifest: t.Manifest,
		}
		c.at = loaded
	case loaded:
		t.Manifest, t.Taken = false, Free
		return c.enqueue(t)
	case queued:
		if !c.Waits(*t) {
			c.at = answered
		}
	}
	return nil
}

// enqueue puts the change into the queue.
func (c *Change) enqueue(t *Timeline) error {
	c.at = asked
	if t.Closed {
		return ErrClosed
	}
	t.Dirty, c.at = c.Archive, queued
	return nil
}
