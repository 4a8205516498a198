package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// drainTimeout is how long requests under way may finish once the server stops
// accepting.
const drainTimeout = 5 * time.Second

// lingerTime is how long a replica that others can stand in for goes on answering
// after it has handed leadership over. Every answer asks the client to close the
// connection, so that nobody has one open, and a request on its way, when the
// server stops: who comes later is refused at once, and knows that nothing happened.
const lingerTime = 300 * time.Millisecond

// unusedTime is how long a stopping server waits for the first byte on a new
// connection. Clients open some in reserve; the library would wait 5 s for them.
const unusedTime = 100 * time.Millisecond

// web is the HTTP side of the replica: its listeners and the server behind them.
type web struct {
	server    *http.Server
	listeners []net.Listener // in the order plain, TLS
	scheme    string         // of the first listener
	log       *slog.Logger
	wg        sync.WaitGroup
	handler   atomic.Pointer[http.Handler]
	leaving   atomic.Bool

	mu     sync.Mutex
	unused map[net.Conn]struct{} // connections on which nothing has come yet
}

// listen binds the addresses of cfg without serving them yet: a port that is
// taken must be found out before this replica joins anything.
func listen(cfg *Config) (_ *web, err error) {
	w := &web{log: cfg.Logger}
	defer func() {
		if err != nil {
			w.abandon()
		}
	}()
	bind := func(addr, scheme string, wrap func(net.Listener) net.Listener) error {
		if addr == "" {
			return nil
		}
		l, err := cfg.Network.Listen(addr)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", addr, err)
		}
		w.listeners = append(w.listeners, wrap(l))
		if w.scheme == "" {
			w.scheme = scheme
		}
		return nil
	}
	if err := bind(cfg.HTTP.Listen, "http",
		func(l net.Listener) net.Listener { return l }); err != nil {
		return nil, err
	}
	if cfg.HTTP.ListenTLS != "" {
		certs := &certificates{cfg: cfg.HTTP, log: cfg.Logger}
		if err := certs.load(); err != nil {
			return nil, err
		}
		conf := &tls.Config{
			GetCertificate: certs.current, MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1"},
		}
		wrap := func(l net.Listener) net.Listener { return tls.NewListener(l, conf) }
		if err := bind(cfg.HTTP.ListenTLS, "https", wrap); err != nil {
			return nil, err
		}
	}
	if len(w.listeners) == 0 {
		return nil, errors.New("no address to listen on")
	}
	return w, nil
}

// url is the base URL of the first listener, with a trailing slash.
func (w *web) url() string { return w.scheme + "://" + w.listeners[0].Addr().String() + "/" }

// handle changes who answers the requests that come from now on.
func (w *web) handle(h http.Handler) { w.handler.Store(&h) }

// ServeHTTP passes a request on to whoever answers now.
func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if w.leaving.Load() {
		out.Header().Set("Connection", "close")
	}
	(*w.handler.Load()).ServeHTTP(out, r)
}

func (w *web) serve(h http.Handler, base context.Context) {
	w.handle(h)
	w.unused = make(map[net.Conn]struct{})
	w.server = &http.Server{
		Handler:           w,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnState:         w.note,
		ErrorLog:          slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
	}
	for _, l := range w.listeners {
		w.wg.Go(func() {
			if err := w.server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
				w.log.Error("HTTP server ended", "addr", l.Addr().String(), "err", err)
			}
		})
	}
}

// note keeps track of the connections on which nothing has come yet.
func (w *web) note(c net.Conn, state http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if state == http.StateNew {
		w.unused[c] = struct{}{}
	} else {
		delete(w.unused, c)
	}
}

// closeUnused ends the connections that clients keep in reserve.
func (w *web) closeUnused() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.unused {
		_ = c.Close()
	}
}

// linger answers for a while longer, and lets go of every client.
func (w *web) linger(ctx context.Context) {
	w.leaving.Store(true)
	select {
	case <-time.After(lingerTime):
	case <-ctx.Done():
	}
}

// stop lets the requests under way finish, for at most drainTimeout, and ends
// the rest.
func (w *web) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	defer time.AfterFunc(unusedTime, w.closeUnused).Stop()
	if err := w.server.Shutdown(ctx); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			w.log.Warn("Timed out joining HTTP server task", "err", err)
		}
		_ = w.server.Close()
	}
	w.wg.Wait()
}

// abandon closes listeners that are not served.
func (w *web) abandon() {
	for _, l := range w.listeners {
		_ = l.Close()
	}
}

// certificates reads the server's certificate again when its files changed, so
// that a renewed one needs no restart.
type certificates struct {
	cfg HTTP
	log *slog.Logger

	mu      sync.Mutex
	cert    *tls.Certificate
	checked time.Time
	stamp   stamps // of the files behind cert
	failed  bool   // the last look at them
}

func (c *certificates) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	due := time.Since(c.checked) >= c.cfg.CertReload
	c.mu.Unlock()
	if due {
		c.renew()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cert, nil
}

// renew loads the certificate if its files have changed. The two are replaced one
// after the other, so that it is no surprise when they do not fit for a moment.
func (c *certificates) renew() {
	err := c.load()
	c.mu.Lock()
	before := c.failed
	c.failed = err != nil
	c.mu.Unlock()
	level := slog.LevelInfo
	if before {
		level = slog.LevelWarn
	}
	if err != nil {
		c.log.Log(context.Background(), level, "Keeping the old TLS certificate", "err", err)
	}
}

func (c *certificates) load() error {
	stamp, err := stampsOf(c.cfg.CertFile, c.cfg.KeyFile)
	c.mu.Lock()
	c.checked = time.Now()
	first := c.cert == nil
	same := !first && stamp == c.stamp
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("TLS certificate: %w", err)
	}
	if same {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.cfg.CertFile, c.cfg.KeyFile)
	if err != nil {
		return fmt.Errorf("TLS certificate: %w", err)
	}
	if !first {
		c.log.Info("Certificate has been reloaded")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cert, c.stamp = &cert, stamp
	return nil
}

// stamps tell one content of the certificate and the key from another. A renewed
// file may be older than the one it replaces.
type stamps [2]struct{ modified, size int64 }

func stampsOf(cert, key string) (s stamps, err error) {
	for i, f := range []string{cert, key} {
		info, err := os.Stat(f)
		if err != nil {
			return s, err
		}
		s[i].modified, s[i].size = info.ModTime().UnixNano(), info.Size()
	}
	return s, nil
}
