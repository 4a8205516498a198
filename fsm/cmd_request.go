package fsm

import "quorate/api/neon"

// PeerSecretSize is the length of the secret of the members, in bytes.
const PeerSecretSize = 32

// SetPeerSecret gives the members a secret, with which they prove to each other that a
// request comes from one of them. It is refused as a Conflict when there is one.
type SetPeerSecret struct {
	Secret []byte `cbor:"1,keyasint"`
}

// Level says that versions before the second level do not know the command.
func (SetPeerSecret) Level() uint64 { return secondLevel }

func (c SetPeerSecret) apply(t *txn) Result {
	if len(t.PeerSecret) > 0 {
		return refuse(neon.Conflict, "the members have a secret")
	}
	if len(c.Secret) != PeerSecretSize {
		return refuse(neon.BadRequest, "a secret of %d bytes", len(c.Secret))
	}
	t.PeerSecret = append([]byte(nil), c.Secret...)
	return Result{}
}

// NoteRequest changes nothing. Under the id of a request it says that the request was
// carried out, where no other entry does.
type NoteRequest struct{}

// Level says that versions before the second level do not know the command.
func (NoteRequest) Level() uint64 { return secondLevel }

func (NoteRequest) apply(*txn) Result { return Result{} }

// BeginKeyed records that a client sends a request under a key of its own. From then on
// Key is the id of that request. It is refused as a Conflict while the key is known.
type BeginKeyed struct {
	Key   RequestID `cbor:"1,keyasint"`
	Print [16]byte  `cbor:"2,keyasint"` // of the request
	At    int64     `cbor:"3,keyasint"` // Unix time in milliseconds
}

// Level says that versions before the second level do not know the command.
func (BeginKeyed) Level() uint64 { return secondLevel }

func (c BeginKeyed) apply(t *txn) Result {
	if c.Key == (RequestID{}) {
		return refuse(neon.BadRequest, "a request needs a key")
	}
	if k, known := t.Keyed(c.Key); known && !k.Expired(c.At) {
		return refuse(neon.Conflict, "a request was begun under that key")
	}
	t.keyed.add(KeyedRequest{Key: c.Key, Print: c.Print, At: c.At})
	return Result{}
}
