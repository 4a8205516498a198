package app

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"

	"quorate/internal/metrics"
	"quorate/internal/pageserver"
	"quorate/internal/safekeeper"
)

// outgoing makes the transports of all outgoing calls.
type outgoing struct {
	dial       func(ctx context.Context, network, addr string) (net.Conn, error)
	tls        *tls.Config
	transports []*http.Transport
}

func newOutgoing(cfg *Config) (*outgoing, error) {
	roots, err := cfg.roots()
	if err != nil {
		return nil, err
	}
	return &outgoing{
		dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return cfg.Network.Dial(ctx, addr)
		},
		tls: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}, nil
}

// pooled makes a transport that keeps connections.
func (o *outgoing) pooled() *http.Transport {
	t := pageserver.NewTransport(o.dial, o.tls)
	o.transports = append(o.transports, t)
	return t
}

// fresh makes a transport that connects for each call, as heartbeats do.
func (o *outgoing) fresh() *http.Transport {
	t := o.pooled()
	t.DisableKeepAlives = true
	return t
}

func (o *outgoing) closeIdle() {
	for _, t := range o.transports {
		t.CloseIdleConnections()
	}
}

func newPageservers(cfg *Config, out *outgoing, recorder *metrics.Recorder) *pageserver.Client {
	return pageserver.New(pageserver.Options{
		Transport: out.pooled(), Heartbeats: out.fresh(), Token: cfg.Tokens.Pageserver,
		UseHTTPS: cfg.PageserverScheme == "https", Observe: observePageservers(recorder),
	})
}

func newSafekeepers(cfg *Config, out *outgoing, recorder *metrics.Recorder) *safekeeper.Client {
	return safekeeper.New(safekeeper.Options{
		Transport: out.pooled(), Heartbeats: out.fresh(), Token: cfg.Tokens.Safekeeper,
		UseHTTPS: cfg.Safekeepers.Scheme == "https", Observe: observeSafekeepers(recorder),
	})
}

// observePageservers counts the calls to pageservers.
func observePageservers(m *metrics.Recorder) func(pageserver.Call) {
	return func(c pageserver.Call) {
		done := metrics.Call{
			Node: c.Node, Path: c.Path, Method: c.Method, OK: c.Status/100 == 2, Took: c.Duration,
		}
		if c.Passthrough {
			m.Passthrough(done)
		} else {
			m.Pageserver(done)
		}
	}
}

// observeSafekeepers counts the calls to safekeepers.
func observeSafekeepers(m *metrics.Recorder) func(safekeeper.Call) {
	return func(c safekeeper.Call) {
		m.Safekeeper(metrics.Call{
			Node: c.Node, Path: c.Path, Method: c.Method, OK: c.Status/100 == 2, Took: c.Duration,
		})
	}
}
