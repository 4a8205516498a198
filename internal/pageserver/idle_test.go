package pageserver

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// A server that stops is held up by a connection that was dialled for a request
// which another connection then carried.
func TestConnectionThatCarriedNothingIsNotKept(t *testing.T) {
	var mu sync.Mutex
	busy := make(map[net.Conn]bool)
	closed := make(chan struct{}, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(
		http.ResponseWriter, *http.Request,
	) {
	}))
	server.Config.ConnState = func(c net.Conn, to http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		switch to {
		case http.StateActive:
			busy[c] = true
		case http.StateClosed:
			if !busy[c] {
				closed <- struct{}{}
			}
		}
	}
	server.Start()
	defer server.Close()

	dialling, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	transport := NewTransport(func(ctx context.Context, network, address string) (net.Conn, error) {
		late := false
		once.Do(func() { late = true })
		if late {
			close(dialling)
			<-gate
		}
		return (&net.Dialer{}).DialContext(context.WithoutCancel(ctx), network, address)
	}, nil)
	defer transport.CloseIdleConnections()
	get := func() {
		resp, err := (&http.Client{Transport: transport}).Get(server.URL)
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
	}
	var wg sync.WaitGroup
	wg.Go(get) // its connection is slow
	<-dialling
	get()       // leaves one behind,
	wg.Wait()   // which carries the other request
	close(gate) // and this one is not needed
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("a connection that carried nothing is kept")
	}
}
