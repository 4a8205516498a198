package api

import (
	"crypto/sha256"
	"net"
	"net/http"
	"time"

	"quorate/api/internal/bodypool"
	"quorate/api/neon"
)

const (
	// bodyTime is how long a client may take to send a body, and idleTime how long
	// nothing may come of it.
	bodyTime = 30 * time.Second
	idleTime = 10 * time.Second

	// roomTime is how long a body waits for others to be answered.
	roomTime = 5 * time.Second

	// unreadTime is how long the rest of a body may take that is not wanted.
	unreadTime = time.Second
)

// bodyPools bound the bytes of the bodies that are held at one time. Pageservers cannot
// do without their calls, so that these have room of their own.
type bodyPools struct{ upcalls, others *bodypool.Pool }

func newBodyPools() bodyPools {
	limits := bodypool.Limits{
		Bytes: bufferedUpcalls, PerClient: bufferedUpcalls / 2,
		Idle: idleTime, Whole: bodyTime, Room: roomTime,
	}
	upcalls := bodypool.New(limits)
	limits.Bytes, limits.PerClient = bufferedBodies, bufferedBodies/4
	return bodyPools{upcalls: upcalls, others: bodypool.New(limits)}
}

// readBody reads the body of a request, whatever its method: pageservers send bodies
// with GET. release gives back its room.
func (s *Server) readBody(c *call, w http.ResponseWriter) (release func(), err error) {
	if !hasBody(c.request) {
		return func() {}, nil
	}
	pool := s.bodies.others
	if c.route.isUpcall() {
		pool = s.bodies.upcalls
	}
	control := http.NewResponseController(w)
	c.body, release, err = pool.Read(c.ctx, bodypool.Body{
		From: c.request.Body, Size: c.request.ContentLength, Limit: c.route.body,
		Client: client(c.request), SetReadDeadline: control.SetReadDeadline,
	})
	if err != nil {
		return nil, err
	}
	_ = control.SetReadDeadline(time.Time{})
	return release, nil
}

// leaveBody gives up a body, or the rest of one. The library reads on before it sends an
// answer, and a client that sends nothing must not hold that up.
func leaveBody(r *http.Request, w http.ResponseWriter) {
	if hasBody(r) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(unreadTime))
	}
}

func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

// client names who sent a request: an address, and a token if one is needed. The token
// has been verified, so that nobody can be many clients.
func client(r *http.Request) bodypool.Client {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	token := sha256.Sum256([]byte(r.Header.Get("Authorization")))
	return bodypool.Client(host + " " + string(token[:]))
}

// bodyRefused prints the error of readBody.
func bodyRefused(err error) answer {
	a := errorAnswer(err)
	if neon.Classify(err) == neon.Unavailable {
		a.header = retryHeader()
	}
	return a
}
