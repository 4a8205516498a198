package demo

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// frontDoor is one address for all controllers, as a load balancer gives it: it
// carries each request to the controller that answered last, or else to the next.
type frontDoor struct {
	url     string
	targets []string
	last    atomic.Int64
	client  *http.Client
	server  *http.Server
	wg      sync.WaitGroup
}

// doorBody bounds a request; upcalls are far smaller.
const doorBody = 64 << 20

func openFrontDoor(urls []string) (*frontDoor, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &frontDoor{
		url: "http://" + l.Addr().String(),
		client: &http.Client{
			Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 16},
		},
	}
	for _, u := range urls {
		d.targets = append(d.targets, strings.TrimSuffix(u, "/"))
	}
	d.server = &http.Server{Handler: d, ReadHeaderTimeout: 10 * time.Second}
	d.wg.Go(func() { _ = d.server.Serve(l) })
	return d, nil
}

func (d *frontDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, doorBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	first := int(d.last.Load())
	for i := range d.targets {
		n := (first + i) % len(d.targets)
		if d.carry(w, r, d.targets[n], body) {
			d.last.Store(int64(n))
			return
		}
	}
	http.Error(w, "no controller answers", http.StatusServiceUnavailable)
}

// carry tells whether the target answered.
func (d *frontDoor) carry(w http.ResponseWriter, r *http.Request, target string, body []byte) bool {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, target+r.URL.RequestURI(),
		bytes.NewReader(body))
	if err != nil {
		return false
	}
	req.Header = r.Header.Clone()
	resp, err := d.client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
	return true
}

func (d *frontDoor) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = d.server.Shutdown(ctx)
	err := d.server.Close()
	d.wg.Wait()
	d.client.CloseIdleConnections()
	return err
}
