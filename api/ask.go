package api

import (
	"encoding/binary"
	"net/http"

	"quorate/api/internal/forward"
	"quorate/api/neon"
)

// Clients poll what only the leader knows, through whichever replica. To carry each of
// these requests to the leader costs both of them more than the answer. So a follower
// asks a question of some bytes, together with what others ask meanwhile, and sends what
// the leader has printed.
//
// A question is a kind and what it is about; an answer is a status, big endian, and a
// body. Whatever goes wrong, the request is carried to the leader as any other, which finds
// the right refusal.

// atOnce answers a brief request as most are: nothing has to be waited for but one round
// between the members, which is bounded by itself, so that no timer is needed. It reports
// false when the request is to be answered in the usual way, and has changed nothing.
func (s *Server) atOnce(c *call) (a answer, err error, ok bool) {
	if a, ok := s.askLeader(c); ok {
		return a, nil, true
	}
	if c.route.duty != onAny && !s.isLeader() || !s.readiness.Serves() {
		return answer{}, nil, false
	}
	a, err = s.serveHere(c)
	return a, err, err == nil || neon.Classify(err) == neon.NotFound
}

// askLeader has the leader answer a request by a question. It reports false when the
// request is to be answered in the usual way.
func (s *Server) askLeader(c *call) (answer, bool) {
	if c.route.ask == nil || s.ask == nil || s.isLeader() || forward.Forwarded(c.request) {
		return answer{}, false
	}
	question := c.route.ask(c)
	if len(question) == 0 {
		return answer{}, false
	}
	b, err := s.ask(c.ctx, question)
	if err != nil || len(b) < 2 {
		return answer{}, false
	}
	s.metrics.Forwarded("ok")
	return answer{status: int(binary.BigEndian.Uint16(b)), body: b[2:]}, true
}

// Answer appends the answer to a question of another replica to b, or nothing. It is
// called when this replica has led and has applied what was acknowledged before the question
// came. It does not block.
func (s *Server) Answer(b, question []byte) []byte {
	from := len(b)
	if len(question) == 0 || !s.isLeader() || !s.readiness.Serves() {
		return b
	}
	switch question[0] {
	case askDescribe:
		b = s.tenants.answer(b, question[1:])
	}
	if !s.isLeader() { // what it sees of the shards may be that of no term
		return b[:from]
	}
	return b
}

// appendAnswer appends an answer without headers of its own, and no other.
func appendAnswer(b []byte, a answer) []byte {
	if a.header != nil || a.status < http.StatusOK {
		return b
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(a.status)), a.body...)
}
