package serve

import (
	"context"
	"net"
	"time"
)

// TCP is the network of a real process.
type TCP struct{}

// Listen listens on a host:port.
func (TCP) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// dialTimeout bounds connecting; a host that does not answer costs no more than this.
const dialTimeout = 3 * time.Second

// Dial connects to a host:port.
func (TCP) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(ctx, "tcp", addr)
}
