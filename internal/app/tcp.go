package app

import (
	"context"
	"net"
	"time"
)

// tcp is the network of a real process.
type tcp struct{}

func (tcp) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// dialTimeout bounds connecting; a host that does not answer costs no more.
const dialTimeout = 3 * time.Second

func (tcp) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(ctx, "tcp", addr)
}

func (cfg *Config) dialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	return cfg.Network.Dial(ctx, addr)
}
