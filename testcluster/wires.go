package testcluster

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"quorate/internal/wait"
)

// wires stand before controllers that are processes and carry what these say to each
// other, so that they can be cut off from each other. They hold what is on its way, as
// the network does, and refuse nothing. A connection of the consensus begins with the
// id of the controller that made it. A connection of HTTP does not: it is held when
// the controller that it leads to is cut off from a majority.
type wires struct {
	members map[string]string // address of the consensus, as others know it -> id

	mu      sync.Mutex
	cut     map[string]map[string]bool // id -> ids that it is cut off from
	changed wait.Broadcast             // of cut and closed
	closed  bool
	open    map[io.Closer]struct{}
	wg      sync.WaitGroup
}

func newWires() *wires {
	return &wires{
		members: make(map[string]string), cut: make(map[string]map[string]bool),
		open: make(map[io.Closer]struct{}),
	}
}

// before makes an address that leads to a target of the controller with an id. All
// are made before anybody dials.
func (w *wires) before(id, target string, named bool) (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	if named {
		w.members[l.Addr().String()] = id
	}
	w.keep(l)
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.wg.Go(func() {
				defer w.drop(c)
				if w.keep(c) {
					_ = w.carry(c, id, target, named) // either end has gone
				}
			})
		}
	})
	return l.Addr().String(), nil
}

// keep remembers what close has to close; it is false when that was done.
func (w *wires) keep(c io.Closer) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[c] = struct{}{}
	return !w.closed
}

func (w *wires) drop(c io.Closer) {
	_ = c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, c)
}

func (w *wires) close() {
	w.mu.Lock()
	w.closed = true
	for c := range w.open {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.changed.Notify()
	w.wg.Wait()
}

// block cuts a controller off from the addresses of others, and from no more.
func (w *wires) block(id string, addresses ...string) {
	from := make(map[string]bool)
	for _, a := range addresses {
		if other, ok := w.members[a]; ok {
			from[other] = true
		}
	}
	w.mu.Lock()
	w.cut[id] = from
	w.mu.Unlock()
	w.changed.Notify()
}

// pass waits until something may pass between two controllers; from is empty when it
// is not known.
func (w *wires) pass(from, to string) error {
	for {
		changed := w.changed.Changed()
		w.mu.Lock()
		held := w.cut[from][to] || w.cut[to][from] ||
			from == "" && len(w.cut[to]) > len(w.members)/2
		closed := w.closed
		w.mu.Unlock()
		switch {
		case closed:
			return net.ErrClosed
		case !held:
			return nil
		}
		<-changed
	}
}

func (w *wires) carry(c net.Conn, to, target string, named bool) error {
	var from string
	var head []byte
	if named {
		var err error
		if from, head, err = whoDials(c); err != nil {
			return err
		}
	}
	if err := w.pass(from, to); err != nil {
		return err
	}
	onward, err := net.DialTimeout("tcp", target, 3*time.Second)
	if err != nil {
		return err
	}
	defer w.drop(onward)
	if !w.keep(onward) {
		return net.ErrClosed
	}
	if _, err := onward.Write(head); err != nil {
		return err
	}
	back := make(chan error, 1)
	w.wg.Go(func() {
		back <- w.copy(c, onward, from, to)
		_ = c.Close()
	})
	err = w.copy(onward, c, from, to)
	_ = onward.Close()
	return errors.Join(err, <-back)
}

func (w *wires) copy(to, from net.Conn, a, b string) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if err := w.pass(a, b); err != nil {
				return err
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// whoDials reads the beginning of a connection of the consensus and returns it
// together with the id in it.
func whoDials(c net.Conn) (id string, head []byte, err error) {
	const magic = "QC1"
	head = make([]byte, len(magic)+1+2)
	if _, err := io.ReadFull(c, head); err != nil {
		return "", nil, err
	}
	if !bytes.HasPrefix(head, []byte(magic)) {
		return "", nil, fmt.Errorf("a connection begins with %q", head)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[len(magic)+1:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return "", nil, err
	}
	var who struct {
		ID string `json:"id"`
	}
	err = json.Unmarshal(body, &who)
	return who.ID, append(head, body...), err
}
