package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"time"
)

// What comes to the peers' port is bounded, also what members send.
const (
	// maxGreetingConns bounds the connections that have not greeted yet. A greeting takes
	// milliseconds, and greetingTimeout at most.
	maxGreetingConns = 64
	// maxPeerConns bounds the connections of one server. A member needs about six; those of
	// a host that was cut off are kept until the system gives them up.
	maxPeerConns = 64
	// maxStrangerConns bounds those of all servers together that are not members.
	maxStrangerConns = 64
)

// meeting is a greeting and how it came here, which decides what of it is believed.
type meeting struct {
	greeting
	proved bool   // a certificate names the server
	dialed string // the address that was dialed; empty if the other one dialed
}

// seat is what streams keep of a connection.
type seat struct {
	socket   net.Conn
	held     bool // a goroutine of raft reads from it and will close it
	incoming bool // the other one dialed
	greeted  bool // the greetings were exchanged
	cut      bool // it was cut off; its user closes it
	who      greeting
	since    time.Time
}

// makeRoom cuts off the oldest of the incoming connections of one kind if there are max
// of them. A server that needs one dials again; one that floods loses its own.
// s.mu is held.
func (s *streams) makeRoom(max int, kind func(*conn) bool) {
	n, oldest := 0, (*conn)(nil)
	for c := range s.conns {
		if !c.incoming || c.cut || !kind(c) {
			continue
		}
		if n++; oldest == nil || c.since.Before(oldest.since) {
			oldest = c
		}
	}
	if n >= max {
		s.cutOff(oldest)
	}
}

// cutOff ends a connection whose user will notice, and close it. s.mu is held.
func (s *streams) cutOff(c *conn) {
	c.cut = true
	_ = c.socket.Close() // of the socket, since TLS would say goodbye first
}

// admit is called when a connection's greetings were exchanged. It reports false if the
// other one turns out to be of another cluster: this server may have learnt its own
// meanwhile.
func (s *streams) admit(c *conn, who greeting) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if foreign(s.hooks.self().Cluster, who.Cluster) || c.cut {
		return false
	}
	if c.incoming {
		s.makeRoom(maxPeerConns, func(o *conn) bool { return o.greeted && o.who.ID == who.ID })
		if !s.hooks.isMember(who.ID) {
			s.makeRoom(maxStrangerConns, func(o *conn) bool {
				return o.greeted && !s.hooks.isMember(o.who.ID)
			})
		}
	}
	c.greeted, c.who, c.since = true, who, time.Now()
	return true
}

// compareAgain ends the connections that were made before this server knew its cluster,
// unless the other one is of that cluster. A server of it dials again, and is compared.
func (s *streams) compareAgain() {
	cluster := s.hooks.self().Cluster
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.greeted && c.who.Cluster != cluster {
			s.cutOff(c)
		}
	}
}

// proof reports whether a certificate proves that the server at the other end has this id.
// With TLS, why says what is wrong if it does not.
func (s *streams) proof(c *conn, id string) (proved bool, why string) {
	secure, ok := c.Conn.(*tls.Conn)
	if !ok {
		return false, ""
	}
	certs := secure.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return false, "no certificate"
	}
	if !names(certs[0], id) {
		return false, "the certificate names " + strings.Join(namesOf(certs[0]), ", ") +
			", not " + id + ": its subject alternative names must have the DNS name " + id
	}
	return true, ""
}

// names reports whether a certificate is that of a server: its id is a DNS name among the
// alternative names, or the common name. A wildcard names no server.
func names(cert *x509.Certificate, id string) bool {
	for _, n := range namesOf(cert) {
		if id != "" && n == id {
			return true
		}
	}
	return false
}

func namesOf(cert *x509.Certificate) []string {
	return append([]string{cert.Subject.CommonName}, cert.DNSNames...)
}
