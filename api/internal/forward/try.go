package forward

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// TryHeader tells the replica that a request is forwarded to which try of which request it
// is. Only members can make one that counts.
const TryHeader = "X-Quorate-Try"

// requestIDHeader is a part of the request that a seal is made of.
const requestIDHeader = "X-Request-Id"

// Try is one try to have a request answered.
type Try struct {
	// ID names the request. The replica that the client talks to draws it.
	ID [16]byte

	// Number is counted from 1. After a try that may have done something the next one has
	// the next number.
	Number int
}

// Seal is the value of TryHeader for a try of a request. It is empty without a secret.
func (t Try) Seal(secret []byte, r *http.Request, body []byte) string {
	if len(secret) == 0 {
		return ""
	}
	return hex.EncodeToString(t.ID[:]) + "." + strconv.Itoa(t.Number) + "." +
		hex.EncodeToString(t.mac(secret, r, body))
}

// OpenTry reads the TryHeader of a request. It is not ok without one, and if it was not
// made with the secret for this very request.
func OpenTry(secret []byte, r *http.Request, body []byte) (t Try, ok bool) {
	id, rest, _ := strings.Cut(r.Header.Get(TryHeader), ".")
	number, mac, _ := strings.Cut(rest, ".")
	rawID, idErr := hex.DecodeString(id)
	rawMAC, macErr := hex.DecodeString(mac)
	n, err := strconv.Atoi(number)
	if len(secret) == 0 || idErr != nil || macErr != nil || err != nil || n < 1 ||
		len(rawID) != len(t.ID) {
		return Try{}, false
	}
	t = Try{ID: [16]byte(rawID), Number: n}
	if !hmac.Equal(rawMAC, t.mac(secret, r, body)) {
		return Try{}, false
	}
	return t, true
}

func (t Try) mac(secret []byte, r *http.Request, body []byte) []byte {
	h := hmac.New(sha256.New, secret)
	_, _ = h.Write(t.ID[:])
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(t.Number)))
	writeParts(h, r, body)
	return h.Sum(nil)
}

// Print is what tells a request from others: its method, its path with the query, and its
// body.
func Print(r *http.Request, body []byte) [32]byte {
	h := sha256.New()
	bare := *r
	bare.Header = nil
	writeParts(h, &bare, body)
	return [32]byte(h.Sum(nil))
}

// writeParts writes the parts of a request, each with its length.
func writeParts(h hash.Hash, r *http.Request, body []byte) {
	for _, part := range [][]byte{
		[]byte(r.Method), []byte(r.URL.EscapedPath()), []byte(r.URL.RawQuery),
		[]byte(r.Header.Get(requestIDHeader)), body,
	} {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		_, _ = io.Copy(h, bytes.NewReader(part))
	}
}
