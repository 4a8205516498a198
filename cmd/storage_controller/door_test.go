package main

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// greet says hello at the port for replicas as anybody could who reaches it: what it
// claims, in the words of the protocol. It returns what the replica says of itself.
func greet(t *testing.T, c net.Conn, claim map[string]any) (who map[string]any) {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	text, err := json.Marshal(claim)
	if err != nil {
		t.Fatal(err)
	}
	hello := binary.BigEndian.AppendUint16([]byte("QC1P"), uint16(len(text)))
	if _, err := c.Write(append(hello, text...)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 3)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, binary.BigEndian.Uint16(head[1:]))
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(answer, &who); err != nil {
		t.Fatal(err)
	}
	return who
}

// A follower forwards a request with its token to the leader. A stranger that says it is the
// leader, and elsewhere, gets neither.
func TestAStrangerGetsNoForwardedToken(t *testing.T) {
	c := newTrio(t)
	c.start(0, 1, 2)
	c.ready(0, 1, 2)
	var got atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the stranger got %s %s with %q", r.Method, r.URL, r.Header.Get("Authorization"))
		got.Add(1)
	}))
	defer evil.Close()
	for _, h := range c.hosts { // whichever leads
		plain, err := net.Dial("tcp", h.raft)
		if err != nil {
			t.Fatal(err)
		}
		who := greet(t, plain, map[string]any{"id": "x"})
		if who["id"] != h.id || who["disk"] == "" || who["cluster"] == "" {
			t.Fatalf("%v", who)
		}
		who["http"], who["raft"] = evil.URL+"/", "127.0.0.1:1"
		for _, other := range c.hosts {
			if other == h {
				continue
			}
			conn, err := net.Dial("tcp", other.raft)
			if err != nil {
				t.Fatal(err)
			}
			if answer := greet(t, conn, who); answer["refusal"] != nil {
				t.Fatalf("%v", answer)
			}
		}
	}
	for range 20 {
		for _, h := range c.hosts {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
				h.url+"/debug/v1/scheduler", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer secret")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %d", h.id, resp.StatusCode)
			}
		}
		if got.Load() > 0 {
			break
		}
	}
}

// With certificates, that of one member does not make another of it, and their end is a
// metric.
func TestACertificateIsOneMembers(t *testing.T) {
	s := startSecure(t)
	cert, err := tls.LoadX509KeyPair(s.path("c2.crt"), s.path("c2.key"))
	if err != nil {
		t.Fatal(err)
	}
	conf := s.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.Certificates = []tls.Certificate{cert}
	members := s.args[0][slices.Index(s.args[0], "--members")+1]
	raft := strings.Split(strings.TrimPrefix(members, "c0="), ",")[0]
	for claim, welcome := range map[string]bool{"c1": false, "x": false, "c2": true} {
		conn, err := tls.Dial("tcp", raft, conf)
		if err != nil {
			t.Fatal(err)
		}
		refusal, _ := greet(t, conn, map[string]any{"id": claim})["refusal"].(string)
		if (refusal == "") != welcome || !welcome && !strings.Contains(refusal, "certificate") {
			t.Errorf("with the certificate of c2 as %s: %q", claim, refusal)
		}
	}
	for _, name := range []string{"https", "peers", "peer_roots"} {
		_, text := s.get(0, "metrics", s.token("admin"))
		if !strings.Contains(text,
			`storage_controller_certificate_expiry_seconds{certificate="`+name+`"} 3`) {
			t.Errorf("no expiry of %s in the metrics", name)
		}
	}
}
