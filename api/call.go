package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"quorate/api/neon"
)

// call is one request on its way to a handler. Its body has been read and its token
// verified. A call may be handled more than once.
type call struct {
	ctx     context.Context
	route   *route
	request *http.Request
	params  gin.Params
	body    []byte
	id      string // the request id

	answered bool // by another replica
}

// bound ends the call at the deadline of its route. The result frees what that takes.
func (c *call) bound(began time.Time) context.CancelFunc {
	ctx, cancel := context.WithDeadline(c.ctx, began.Add(c.route.deadline))
	c.ctx = ctx
	return cancel
}

// answer is what a handler returns. The stream, if there is one, is sent instead of the
// body.
type answer struct {
	status int           // 0: 200
	header http.Header   // beyond the usual ones
	body   []byte        // JSON, unless header says otherwise
	stream io.ReadCloser // an answer of the leader that is too large to hold

	pooled bool // the body goes back to buffers once it is sent

	// more appends the next part of an answer that is too large to hold, after the body, and
	// reports whether another one follows. Nil: the body is all.
	more func(b []byte) ([]byte, bool)
}

const (
	// heldSize is how much of an answer is made before any of it is sent, in bytes, and
	// partSize how much at a time.
	heldSize = 1 << 20
	partSize = 64 << 10
)

// buffers are for the bodies of answers that are asked for often, or are large.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// mostPooled bounds the size of a buffer that is kept, in bytes.
const mostPooled = heldSize + 4*partSize

// buffer is a body of at least a size, to append to. Its answer is to be pooled.
func buffer(size int) []byte { return slices.Grow((*buffers.Get().(*[]byte))[:0], size) }

func (a *answer) release() {
	if b := a.body; a.pooled && cap(b) <= mostPooled {
		buffers.Put(&b)
	}
}

// inParts makes an answer of parts. One that is not large is sent as any other.
func inParts(next func(b []byte) ([]byte, bool)) (a answer) {
	a.body, a.pooled = buffer(partSize), true
	for on := true; on; {
		if len(a.body) >= heldSize {
			a.more = next
			break
		}
		a.body, on = next(a.body)
	}
	return a
}

// nothing is the body of a success without a result whose clients decode an object.
type nothing struct{}

// null is the body of a success without a result. Every client decodes it.
var null = []byte("null")

// done is the answer of a success without a result.
func done(err error) (answer, error) {
	return answer{body: null}, err
}

// accepted answers a request whose work goes on after the answer.
func accepted(err error) (answer, error) {
	return answer{status: http.StatusAccepted, body: null}, err
}

// reply prints v as JSON.
func reply(v any, err error) (answer, error) {
	return replyWith(http.StatusOK, v, err)
}

func replyWith(status int, v any, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return answer{}, neon.Errorf(neon.Internal, "encode answer: %w", err)
	}
	return answer{status: status, body: b}, nil
}

func (c *call) decode(into any) error {
	return neon.DecodeBody(bytes.NewReader(c.body), c.route.body, into)
}
