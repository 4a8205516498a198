package testcluster

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"quorate/cluster"
	"quorate/cluster/clustertest"
	"quorate/internal/freeport"
)

// network is what everything in a cluster listens on and dials: memory, or the
// loopback interface. It is safe for concurrent use.
type network struct {
	memory *clustertest.Network // nil: loopback

	mu         sync.Mutex
	transports []*http.Transport
}

// newNetwork makes the network of a mode.
func newNetwork(mode Mode) *network {
	n := &network{}
	if mode == Virtual {
		n.memory = clustertest.NewNetwork()
	}
	return n
}

// listen opens a port of a host. On loopback the address is that of the last listener
// of the same caller, or empty for any free port.
func (n *network) listen(host, port, last string) (net.Listener, error) {
	switch {
	case n.memory != nil:
		return n.memory.Host(host).Listen(host + ":" + port)
	case last == "":
		last = "127.0.0.1:0"
	}
	return net.Listen("tcp", last)
}

// host is the network as one host sees it.
func (n *network) host(name string) cluster.Network {
	if n.memory != nil {
		return n.memory.Host(name)
	}
	return tcp{}
}

// transport makes an HTTP transport whose connections come from a host.
func (n *network) transport(host string) *http.Transport {
	t := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	if n.memory != nil {
		from := n.memory.Host(host)
		t.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
			return from.Dial(ctx, addr)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.transports = append(n.transports, t)
	return t
}

// close releases the idle connections of all transports.
func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.transports {
		t.CloseIdleConnections()
	}
}

// tcp is the real network.
type tcp struct{}

func (tcp) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (tcp) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 3 * time.Second}
	return d.DialContext(ctx, "tcp", addr)
}

// freeAddresses finds loopback addresses that nothing uses at the moment.
func freeAddresses(n int) (_ []string, err error) {
	found := make([]string, n)
	for i := range found {
		if found[i], err = freeport.Address(); err != nil {
			return nil, err
		}
	}
	return found, nil
}
