// Package serve has the sockets of a replica: the HTTP listeners and the server behind
// them, the certificates that are read again when their files change, and TCP.
//
// It knows nothing of what is served, nor of who leads.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"quorate/internal/wait"
)

const (
	// drainTimeout is how long requests under way may finish once the server stops
	// accepting.
	drainTimeout = 5 * time.Second

	// releaseTime is how long a server goes on answering while it asks every client to
	// close its connection. A request that comes after the stop is then refused at
	// once, so that its client knows that nothing happened.
	releaseTime = 300 * time.Millisecond

	// unusedTime is how long a stopping server waits for the first byte on a new
	// connection. Clients open some in reserve; the library would wait 5 s for them.
	unusedTime = 100 * time.Millisecond
)

// Config says where to listen. At least one of Listen and ListenTLS is set.
type Config struct {
	Listen, ListenTLS string // host:port, port 0 picks one

	// CertFile and KeyFile are the server's certificate for ListenTLS. They are
	// checked for changes every CertReload; 0 means every minute.
	CertFile, KeyFile string
	CertReload        time.Duration
	// Certificates, if not nil, is told of it.
	Certificates *Certificates

	// MaxConnections bounds the connections of all listeners together; 0: half of the
	// process's file descriptors, at most 10,000.
	MaxConnections int
}

// Network opens the sockets to listen on.
type Network interface {
	Listen(addr string) (net.Listener, error)
}

// Server is an HTTP server whose handler can be replaced while it runs.
type Server struct {
	server    *http.Server
	listeners []net.Listener // in the order plain, TLS
	scheme    string         // of the first listener
	log       *slog.Logger
	wg        sync.WaitGroup
	handler   atomic.Pointer[http.Handler]
	releasing atomic.Bool

	connections *connections
}

// Listen binds the addresses of cfg without serving them yet: a port that is in use
// must be found before the replica joins anything. A server that is not started must
// be closed.
func Listen(cfg Config, network Network, log *slog.Logger) (_ *Server, err error) {
	s := &Server{log: log, connections: newConnections(cfg.MaxConnections, log)}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if cfg.Listen != "" {
		l, err := s.bind(network, cfg.Listen)
		if err != nil {
			return nil, err
		}
		s.add("http", l)
	}
	if cfg.ListenTLS != "" {
		certs, err := openCertificate(cfg.CertFile, cfg.KeyFile, cfg.CertReload, log)
		if err != nil {
			return nil, err
		}
		cfg.Certificates.add(&watched{name: "https", file: certs})
		l, err := s.bind(network, cfg.ListenTLS)
		if err != nil {
			return nil, err
		}
		s.add("https", tls.NewListener(l, &tls.Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return certs.current(), nil
			},
			MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1"},
		}))
	}
	if len(s.listeners) == 0 {
		return nil, errors.New("no address to listen on")
	}
	return s, nil
}

func (s *Server) bind(network Network, addr string) (net.Listener, error) {
	l, err := network.Listen(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return s.connections.bound(l), nil
}

func (s *Server) add(scheme string, l net.Listener) {
	if s.scheme == "" {
		s.scheme = scheme
	}
	s.listeners = append(s.listeners, l)
}

// URL is the base URL of the first listener, with a trailing slash.
func (s *Server) URL() string { return s.scheme + "://" + s.listeners[0].Addr().String() + "/" }

// Addrs are the addresses that are listened on, the plain one first.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, 0, len(s.listeners))
	for _, l := range s.listeners {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}

// Handle replaces the handler of the requests that come from now on.
func (s *Server) Handle(h http.Handler) { s.handler.Store(&h) }

// ServeHTTP passes a request to the present handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.releasing.Load() {
		w.Header().Set("Connection", "close")
	}
	(*s.handler.Load()).ServeHTTP(w, r)
}

// Start serves h on all listeners. base is the context of all requests.
func (s *Server) Start(base context.Context, h http.Handler) {
	s.Handle(h)
	s.server = &http.Server{
		Handler:           GiveUpOnSlowReaders(s),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnState:         s.connections.changed,
		ErrorLog:          newErrorLog(s.log),
	}
	for _, l := range s.listeners {
		s.wg.Go(func() {
			if err := s.server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
				s.log.Error("HTTP server ended", "addr", l.Addr().String(), "err", err)
			}
		})
	}
}

// Release goes on answering for a moment, and asks every client to close its
// connection. It is for a replica that others can stand in for.
func (s *Server) Release(ctx context.Context) {
	s.releasing.Store(true)
	_ = wait.Sleep(ctx, releaseTime)
}

// Stop lets the requests under way finish, for at most drainTimeout, and ends the rest.
func (s *Server) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	defer time.AfterFunc(unusedTime, s.connections.closeUnused).Stop()
	if err := s.server.Shutdown(ctx); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			s.log.Warn("Timed out joining HTTP server task", "err", err)
		}
		_ = s.server.Close()
	}
	s.wg.Wait()
}

// Close closes the listeners of a server that was not started.
func (s *Server) Close() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}
