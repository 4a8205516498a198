package simpageserver

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
)

// memNet is a network of pipes, so that virtual time can pass.
type memNet struct {
	mu        sync.Mutex
	listeners map[string]*memListener
}

type memListener struct {
	net    *memNet
	addr   memAddr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

type memAddr string

func (a memAddr) Network() string { return "mem" }
func (a memAddr) String() string  { return string(a) }

func (m *memNet) listen(addr string) func() (net.Listener, error) {
	return func() (net.Listener, error) {
		l := &memListener{
			net: m, addr: memAddr(addr), conns: make(chan net.Conn), closed: make(chan struct{}),
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.listeners[addr] = l
		return l, nil
	}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memListener) Addr() net.Addr { return l.addr }

func (m *memNet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	m.mu.Lock()
	l := m.listeners[addr]
	m.mu.Unlock()
	if l == nil {
		return nil, net.ErrClosed
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestVirtualTime runs a node for hours in a bubble: activation of an hour,
// restart with a controller that is away for ten minutes, a paused node, and a
// periodic maintenance.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := &memNet{listeners: map[string]*memListener{}}
		transport := &http.Transport{DialContext: mem.dial}
		defer transport.CloseIdleConnections()
		f := NewFleet(Options{
			Seed: 7, Store: NewStore(StoreOptions{WALRate: 1000}),
			Behaviour: Behaviour{Activation: time.Hour},
		})
		defer f.Close()
		w := &world{
			t: t, fleet: f, auth: newAuthority(f.Oracle()),
			client: &http.Client{Transport: transport}, base: "http://controller:1/upcall/v1/",
		}
		ln, err := mem.listen("controller:1")()
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: w.auth}
		var serving sync.WaitGroup
		serving.Go(func() { _ = srv.Serve(ln) })
		defer serving.Wait()
		defer func() { _ = srv.Close() }()

		n, err := f.AddNode(NodeOptions{
			ID: 1, AZ: neon.MakeAZ("a"), Upcalls: []string{w.base}, Dial: transport,
			Listen: mem.listen("ps-1:9898"), Register: true, Maintenance: time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		w.start(n)
		shard := shardOf(0)
		w.attach(n, shard)
		time.Sleep(59 * time.Minute)
		if v, _ := n.Location(shard); v.State != Attaching {
			t.Errorf("after 59 minutes %s", v.State)
		}
		time.Sleep(time.Minute)
		w.timeline(n, shard, 1)
		time.Sleep(time.Hour)
		n.SetBehaviour(Behaviour{})

		w.auth.mu.Lock()
		w.auth.refuse = 200 // ten minutes of attempts
		w.auth.mu.Unlock()
		if err := n.Restart(context.Background()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := n.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		if away := time.Since(began); away < 9*time.Minute || away > 11*time.Minute {
			t.Errorf("re-attached after %s", away)
		}
		n.Pause()
		var paused sync.WaitGroup
		paused.Go(func() { w.call(n, "GET", "/v1/status", nil) })
		time.Sleep(time.Hour)
		n.Resume()
		paused.Wait()
		if v, _ := n.Location(shard); v.Generation != 2 || v.State != Active {
			t.Errorf("at the end %+v", v)
		}
		if err := f.AttachedExactlyOnce([]neon.ShardID{shard}); err != nil {
			t.Error(err)
		}
		if err := f.CheckQuiescent(); err != nil {
			t.Error(err)
		}
		w.silent()
		n.Kill()
	})
}
