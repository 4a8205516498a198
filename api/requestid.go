package api

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"

	"github.com/google/uuid"
)

const requestIDHeader = "X-Request-Id"

// longestID is how long a request id may be, in bytes, to be taken as it is.
const longestID = 128

// requestID is the id of a request. Ids go to the logs of all replicas, so that one that
// is long or that cannot be printed is replaced by a digest of it: those who ask again
// with the same id, through whichever replica, still have the same.
func requestID(h http.Header) string {
	id := h.Get(requestIDHeader)
	if id == "" {
		return uuid.NewString()
	}
	if len(id) <= longestID && isPrintable(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256-" + hex.EncodeToString(sum[:])
}

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
