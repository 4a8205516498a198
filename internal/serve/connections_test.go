package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/internal/logbuffer"
)

// get makes one request on a connection that stays open.
func get(t *testing.T, conn net.Conn) error {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	b := make([]byte, 15)
	_, err := io.ReadFull(conn, b)
	if err == nil && string(b) != "HTTP/1.1 200 OK" {
		err = fmt.Errorf("%q", b)
	}
	return err
}

func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	conn, err := TCP{}.Dial(t.Context(), s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Idle connections, however many, keep no client out, and the log says that there are too
// many once, not for each.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	var out logbuffer.Buffer
	s := serving(t, Config{Listen: "127.0.0.1:0", MaxConnections: 4},
		slog.New(slog.NewTextHandler(&out, nil)), "hi")
	for i := range 20 {
		if err := get(t, dial(t, s)); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	s.connections.mu.Lock()
	open := len(s.connections.open)
	s.connections.mu.Unlock()
	if open > 4 {
		t.Errorf("%d connections are open", open)
	}
	if n := strings.Count(out.String(), "Too many HTTP connections"); n != 1 {
		t.Errorf("told %d times:\n%s", n, out.String())
	}
}

// A connection whose request is under way is not closed for a new one.
func TestBusyConnectionsStay(t *testing.T) {
	s, err := Listen(Config{Listen: "127.0.0.1:0", MaxConnections: 2}, TCP{},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	begun, finish := make(chan struct{}, 8), make(chan struct{})
	s.Start(context.Background(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-finish
	}))
	t.Cleanup(func() { s.Stop(context.Background()) })
	var busy sync.WaitGroup
	for range 2 {
		conn := dial(t, s)
		busy.Go(func() {
			if err := get(t, conn); err != nil {
				t.Errorf("a request under way: %v", err)
			}
		})
		<-begun
	}
	if err := get(t, dial(t, s)); err == nil {
		t.Error("a third connection was served")
	}
	close(finish)
	busy.Wait()
	if err := get(t, dial(t, s)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// failingListener runs out of descriptors a few times.
type failingListener struct {
	net.Listener
	fail int
}

type noDescriptors struct{ error }

func (noDescriptors) Timeout() bool   { return false }
func (noDescriptors) Temporary() bool { return true }

func (l *failingListener) Accept() (net.Conn, error) {
	if l.fail--; l.fail >= 0 {
		return nil, noDescriptors{errors.New("too many open files")}
	}
	return l.Listener.Accept()
}

type failingNetwork struct{}

func (failingNetwork) Listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	return &failingListener{l, 3}, err
}

func TestTheLogSaysWhenDescriptorsRunOut(t *testing.T) {
	var out logbuffer.Buffer
	s, err := Listen(Config{Listen: "127.0.0.1:0"}, failingNetwork{},
		slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s.Start(context.Background(), answer("hi"))
	t.Cleanup(func() { s.Stop(context.Background()) })
	if err := get(t, dial(t, s)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "too many open files"); n != 1 ||
		!strings.Contains(out.String(), "level=WARN") {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

func TestTheLogSaysWhyAHandshakeFailed(t *testing.T) {
	var out logbuffer.Buffer
	cfg := withCertificate(t)
	writeCertificate(t, cfg, 1)
	s := serving(t, cfg, slog.New(slog.NewTextHandler(&out, nil)), "hi")
	for range 3 {
		conn, err := tls.Dial("tcp", s.Addrs()[0].String(), &tls.Config{ServerName: "other"})
		if err == nil {
			_ = conn.Close()
			t.Fatal("a client without the root was content")
		}
	}
	conn := dial(t, s)
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	_, _ = io.ReadAll(conn) // the server has closed, after it has written its line
	if n := strings.Count(out.String(), "TLS handshake error"); n != 1 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

func TestLinesOfOneKindAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newErrorLog(slog.New(slog.NewTextHandler(&out, nil)))
		for range 100 {
			l.Print("http: TLS handshake error from 127.0.0.1:1: EOF")
		}
		l.Print("http: panic serving 127.0.0.1:1: " + strings.Repeat("x", 1<<20))
		time.Sleep(throttlePause)
		l.Print("http: TLS handshake error from 127.0.0.1:1: EOF")
		text := out.String()
		if strings.Count(text, "\n") != 3 || !strings.Contains(text, "not_told=99") ||
			!strings.Contains(text, "level=ERROR") || len(text) > 2*longestError {
			t.Errorf("%d bytes: %.2000s", len(text), text)
		}
	})
}

// pipeNetwork is a network in memory, for virtual time.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A client that does not read is given up after a while; one that is slow is not.
func TestSlowReaders(t *testing.T) {
	for name, pause := range map[string]time.Duration{
		"never reads": time.Hour, "is slow": writeTime / 2,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &pipeListener{make(chan net.Conn), make(chan struct{})}
				wrote := make(chan error, 1)
				s := &http.Server{Handler: GiveUpOnSlowReaders(http.HandlerFunc(
					func(w http.ResponseWriter, _ *http.Request) {
						_, err := w.Write(make([]byte, 10*writePiece))
						wrote <- err
					}))}
				var wg sync.WaitGroup
				wg.Go(func() { _ = s.Serve(l) })
				client, server := net.Pipe()
				l.conns <- server
				_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				began := time.Now()
				wg.Go(func() {
					for b := make([]byte, writePiece); ; time.Sleep(pause) {
						if _, err := io.ReadFull(client, b); err != nil {
							return
						}
					}
				})
				err := <-wrote
				slow := pause > writeTime
				if (err != nil) != slow || slow && time.Since(began) > 2*writeTime {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
				_ = client.Close()
				_ = s.Close()
				wg.Wait()
			})
		})
	}
}

// What a handler wrote last is sent, however long it works before it ends.
func TestTheLastPieceIsSentLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{make(chan net.Conn), make(chan struct{})}
		s := &http.Server{Handler: GiveUpOnSlowReaders(http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "all of it")
				time.Sleep(2 * writeTime)
			}))}
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.Serve(l) })
		client, server := net.Pipe()
		l.conns <- server
		_, _ = io.WriteString(client, "GET / HTTP/1.0\r\n\r\n")
		b, err := io.ReadAll(client)
		if err != nil || !strings.HasSuffix(string(b), "all of it") {
			t.Errorf("%q, %v", b, err)
		}
		_ = client.Close()
		_ = s.Close()
		wg.Wait()
	})
}

// deadlines is a connection that remembers the deadlines of its writes.
type deadlines struct {
	net.Conn
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error { d.set = append(d.set, t); return nil }

func (d *deadlines) SetDeadline(t time.Time) error { return d.SetWriteDeadline(t) }

// The deadline of a connection is never more than a step behind what was asked for, and
// never later.
func TestWriteDeadlinesMoveInSteps(t *testing.T) {
	at := time.Unix(1000, 0)
	d := &deadlines{}
	c := &countedConn{Conn: d}
	for _, step := range []struct {
		to  time.Time
		set bool
	}{
		{at, true}, {at, false}, {at.Add(deadlineStep - 1), false}, {at.Add(deadlineStep), true},
		{at.Add(deadlineStep - 1), true}, {time.Time{}, true}, {at.Add(deadlineStep), true},
	} {
		before := len(d.set)
		if err := c.SetWriteDeadline(step.to); err != nil || len(d.set) > before != step.set {
			t.Errorf("%v: set %v, %v", step.to, len(d.set) > before, err)
		}
	}
	_ = c.SetDeadline(at)
	if _ = c.SetWriteDeadline(at.Add(1)); !d.set[len(d.set)-1].Equal(at.Add(1)) {
		t.Error("a step was left out after SetDeadline")
	}
}

// A connection under TLS is told apart from one with a request as well.
func TestConnectionsUnderTLSAreCounted(t *testing.T) {
	c := newConnections(1, slog.New(slog.DiscardHandler))
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	counted := c.admit(ours)
	secure := tls.Server(counted, &tls.Config{MinVersion: tls.VersionTLS12})
	for _, step := range []struct {
		state http.ConnState
		waits bool
	}{{http.StateNew, true}, {http.StateActive, false}, {http.StateIdle, true}} {
		c.changed(secure, step.state)
		if counted.waits.Load() != 0 != step.waits {
			t.Errorf("%v: waits since %d", step.state, counted.waits.Load())
		}
	}
	if c.admit(theirs) == nil || len(c.open) != 1 {
		t.Errorf("it makes no room: %d are open", len(c.open))
	}
}
