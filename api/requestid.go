package api

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"quorate/api/neon"
)

const (
	requestIDHeader = "X-Request-Id"

	// idempotencyKeyHeader is that of the IETF's draft (draft-ietf-httpapi-idempotency-key-header).
	// A request that comes without it gets a key of its own from the replica that it comes
	// to, so that one which has to carry it to another leader carries the same request.
	idempotencyKeyHeader = "Idempotency-Key"
)

// longestID is how long a request id may be, in bytes, to be taken as it is.
const longestID = 128

// requestID is the id of a request. Ids go to the logs of all replicas, so that one that
// is long or that cannot be printed is replaced by a digest of it: those who ask again
// with the same id, through whichever replica, still have the same.
func requestID(h http.Header) string {
	id := h.Get(requestIDHeader)
	if id == "" {
		return newID()
	}
	if len(id) <= longestID && isPrintable(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256-" + hex.EncodeToString(sum[:])
}

// newID is a random UUID. Nobody has to be kept from guessing it, and every request gets one.
func newID() string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // version 4
	return id.String()
}

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// ownKey begins the keys that replicas give to requests.
const ownKey = "quorate-"

// longestKey is how long an idempotency key may be, in bytes.
const longestKey = 255

// requestKey names a request. One that is tried again under the same idempotency key,
// through whichever replica, has the same name. One with another method, path, query or
// body is another request, and so is one without a key, also from a member of an older
// version: clients give many requests the same request id, to trace them.
func requestKey(c *call) (key [32]byte, byClient bool, err error) {
	keys := c.request.Header.Values(idempotencyKeyHeader)
	switch {
	case len(keys) > 1 || len(keys) == 1 && !isKey(keys[0]):
		return key, false, neon.Errorf(neon.BadRequest,
			"%s must be one text of 1 to %d printable characters", idempotencyKeyHeader, longestKey)
	case len(keys) == 0:
		keys = []string{ownKey + uuid.NewString()}
		c.request.Header[idempotencyKeyHeader] = keys // the leader must find the same
	}
	byClient = !strings.HasPrefix(keys[0], ownKey)
	h := sha256.New()
	for _, part := range []string{
		keys[0], c.request.Method, c.request.URL.EscapedPath(), c.request.URL.RawQuery,
	} {
		_, _ = io.WriteString(h, part)
		_, _ = h.Write([]byte{0})
	}
	_, _ = h.Write(c.body)
	h.Sum(key[:0])
	return key, byClient, nil
}

func isKey(s string) bool { return s != "" && len(s) <= longestKey && isPrintable(s) }
