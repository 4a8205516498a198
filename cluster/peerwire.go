package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Calls between servers that raft does not have. A frame is a length (4 bytes,
// of what follows), a kind (1), an id (8) that pairs an answer with its call,
// and a body.
const (
	callTerm      byte = 1 // -> term u64: the term the server is in at this moment
	callReadIndex byte = 2 // term u64, which older versions leave out -> index u64, term u64
	callStatus    byte = 3 // -> JSON peerReport
	callWitness   byte = 4 // JSON witnessQuestion -> JSON witnessAnswer
	// -> nothing, once a test write is done; refused by a server that could not lead
	callTestWrite byte = 5
	// JSON foundingQuestion -> JSON foundingAnswer
	callFound byte = 6
	// JSON invitation -> {}, once the server is of the cluster
	callInvite byte = 7
	// JSON application -> JSON applicationAnswer
	callJoin      byte = 8
	answerOK      byte = 0x80
	answerRefused byte = 0x81 // body: one code byte, then text

	maxPeerFrame = 64 << 10
	peerHead     = 4 + 1 + 8
)

const (
	refusedNotLeader   byte = 1
	refusedOther       byte = 2
	refusedNotEmpty    byte = 3
	refusedMismatch    byte = 4
	refusedOtherServer byte = 5
)

// refusals are the errors that keep their class on their way.
var refusals = map[byte]error{
	refusedNotLeader: ErrNotLeader, refusedNotEmpty: ErrNotEmpty,
	refusedMismatch: ErrClusterMismatch, refusedOtherServer: ErrOtherServer,
}

var errPeerFrame = errors.New("malformed peer frame")

type peerFrame struct {
	kind byte
	id   uint64
	body []byte
}

func appendPeerFrame(b []byte, f peerFrame) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(1+8+len(f.body)))
	b = append(b, f.kind)
	b = binary.BigEndian.AppendUint64(b, f.id)
	return append(b, f.body...)
}

func readPeerFrame(r io.Reader) (peerFrame, error) {
	var head [peerHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return peerFrame{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 1+8 || size > maxPeerFrame {
		return peerFrame{}, errPeerFrame
	}
	f := peerFrame{kind: head[4], id: binary.BigEndian.Uint64(head[5:]), body: make([]byte, size-9)}
	if _, err := io.ReadFull(r, f.body); err != nil {
		return peerFrame{}, err
	}
	return f, nil
}

func refusal(err error) []byte {
	code := refusedOther
	for c, class := range refusals {
		if errors.Is(err, class) {
			code = c
		}
	}
	return append([]byte{code}, err.Error()...)
}

func refusalError(body []byte) error {
	if len(body) == 0 {
		return errPeerFrame
	}
	if class := refusals[body[0]]; class != nil {
		return fmt.Errorf("%w: peer said: %s", class, body[1:])
	}
	return fmt.Errorf("peer said: %s", body[1:])
}

func twoUint64(body []byte) (a, b uint64, err error) {
	if len(body) != 16 {
		return 0, 0, errPeerFrame
	}
	return binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:]), nil
}

func oneUint64(body []byte) (uint64, error) {
	if len(body) != 8 {
		return 0, errPeerFrame
	}
	return binary.BigEndian.Uint64(body), nil
}
