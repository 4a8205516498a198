package tracelog

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// QueueSize is how many bytes of lines wait at most for the reader of a log: a few
// thousand lines.
const QueueSize = 1 << 20

// atOnce is how much one call writes at most, unless a single line is longer. A pipe
// takes so much without mixing it with what other processes write.
const atOnce = 4096

// Queue takes lines without ever waiting for their reader: one goroutine
// writes them, in their order. What does not fit is lost, counted, and told in one
// line at the place where it is missing.
//
// A process that crashes loses at most what the goroutine had not taken yet: with a
// reader that reads, the lines of the last microseconds.
type Queue struct {
	w    io.Writer
	size int
	lost atomic.Uint64
	wake chan struct{}
	done chan struct{} // closed when the goroutine has ended

	mu         sync.Mutex
	lines      []queued
	bytes      int           // of all lines that are not written yet
	unreported uint64        // lines lost of which no line has told
	losing     bool          // until there is room again
	closed     bool          // no line is taken any more
	drained    chan struct{} // closed when everything is written; nil without a waiter
}

// queued is one line that waits. tells is how many lost lines it tells of.
type queued struct {
	text  []byte
	tells uint64
}

// NewQueue makes a Queue of so many bytes in front of w. Close ends it.
func NewQueue(w io.Writer, size int) *Queue {
	q := &Queue{w: w, size: size, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write takes one line. It never fails and never waits.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	room := q.size
	if q.losing {
		// Half of it must be free again, so that one line tells of many.
		room /= 2
	}
	if q.closed || q.bytes+len(line) > room {
		q.losing = true
		q.unreported++
		q.lost.Add(1)
		return len(line), nil
	}
	q.tell()
	q.add(queued{text: bytes.Clone(line)})
	return len(line), nil
}

// tell puts the line that tells of lost ones into its place, if there are any.
func (q *Queue) tell() {
	q.losing = false
	if q.unreported == 0 {
		return
	}
	text := fmt.Appendf(nil, "%s%slines of this log are missing here: it was not read, or not "+
		"written, in time; see to its reader lines=%d\n",
		time.Now().UTC().Format(timeFormat), levelWord(slog.LevelWarn), q.unreported)
	q.add(queued{text: text, tells: q.unreported})
	q.unreported = 0
}

func (q *Queue) add(l queued) {
	q.lines = append(q.lines, l)
	q.bytes += len(l.text)
	q.signal()
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Lost is how many lines were lost so far.
func (q *Queue) Lost() uint64 { return q.lost.Load() }

// Close takes no further lines, and waits until those before are written, but no
// longer than limit. It reports whether they are.
func (q *Queue) Close(limit time.Duration) bool {
	q.mu.Lock()
	q.closed = true
	q.signal()
	q.mu.Unlock()
	select {
	case <-q.done:
		return true
	case <-time.After(limit):
		return false
	}
}

// Flush waits until all lines so far are written, but no longer than limit. It
// reports whether they are.
func (q *Queue) Flush(limit time.Duration) bool {
	q.mu.Lock()
	if q.bytes == 0 {
		q.mu.Unlock()
		return true
	}
	if q.drained == nil {
		q.drained = make(chan struct{})
	}
	drained := q.drained
	q.mu.Unlock()
	select {
	case <-drained:
		return true
	case <-time.After(limit):
		return false
	}
}

// run writes until Close is called and everything is written.
func (q *Queue) run() {
	defer close(q.done)
	var batch []queued
	var text []byte
	torn := false // the last write ended within a line
	for {
		var ended bool
		if batch, ended = q.next(batch[:0]); ended {
			return
		}
		text = text[:0]
		if torn {
			text = append(text, '\n')
		}
		before := len(text)
		for _, l := range batch {
			text = append(text, l.text...)
		}
		n, err := q.w.Write(text)
		if n > 0 {
			torn = text[n-1] != '\n'
		}
		q.wrote(batch, n-before, err)
	}
}

// next waits for lines and returns those of one call; the Queue goes on counting
// them until they are written.
func (q *Queue) next(batch []queued) (_ []queued, ended bool) {
	for {
		q.mu.Lock()
		if len(q.lines) == 0 && q.drained != nil {
			close(q.drained)
			q.drained = nil
		}
		size := 0
		for len(q.lines) > 0 && (size == 0 || size+len(q.lines[0].text) <= atOnce) {
			size += len(q.lines[0].text)
			batch = append(batch, q.lines[0])
			q.lines = q.lines[1:]
		}
		ended = len(batch) == 0 && q.closed
		q.mu.Unlock()
		if len(batch) > 0 || ended {
			return batch, ended
		}
		<-q.wake
	}
}

// wrote takes note of a call that wrote n bytes of the lines of a batch.
func (q *Queue) wrote(batch []queued, n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range batch {
		q.bytes -= len(l.text)
		if n -= len(l.text); n >= 0 {
			continue
		}
		if l.tells > 0 {
			q.unreported += l.tells
			continue
		}
		q.unreported++
		q.lost.Add(1)
	}
	// A log that cannot be written hears of it with its next line.
	if len(q.lines) == 0 && err == nil {
		q.tell()
	}
}
