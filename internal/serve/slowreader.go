package serve

import (
	"net/http"
	"time"
)

const (
	// writePiece is how much of an answer is written at a time, in bytes, and writeTime
	// how long the client may take for it. A client that takes longer is given up: it
	// holds the whole answer in memory. So a client may be as slow as 6 KB/s.
	writePiece = 64 << 10
	writeTime  = 10 * time.Second

	// heldBack is how much of an answer net/http keeps until the handler returns, at least.
	heldBack = 2048
)

// GiveUpOnSlowReaders makes the answers of a handler end when their client does not
// read them.
func GiveUpOnSlowReaders(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timed := &timedWriter{ResponseWriter: w, control: http.NewResponseController(w)}
		h.ServeHTTP(timed, r)
		timed.allow() // what is still in the buffer, however long ago it was written
	})
}

// timedWriter sets a deadline for each piece.
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	written int
}

func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// allow gives the client its time for what comes next. Recorders of tests have no
// deadlines; nothing is slow there.
func (w *timedWriter) allow() { _ = w.control.SetWriteDeadline(time.Now().Add(writeTime)) }

// Flush makes http.Flusher work for those who ask for it by type.
func (w *timedWriter) Flush() {
	w.allow()
	_ = w.control.Flush()
}

func (w *timedWriter) Write(p []byte) (n int, err error) {
	for {
		piece := p[n:min(len(p), n+writePiece)]
		if w.written += len(piece); w.written > heldBack {
			w.allow()
		}
		m, err := w.ResponseWriter.Write(piece)
		n += m
		if err != nil || n == len(p) {
			return n, err
		}
	}
}
