package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"quorate/cluster"
)

// controlSocket is the file in the data directory through which commands on the
// same machine reach a running replica. Who may open the directory may use it.
const controlSocket = "control.sock"

// longestSocketPath is what a socket address holds, less the file's name.
const longestSocketPath = 90

// controlTimeout bounds one command; giving a newcomer its vote takes longest.
const controlTimeout = 10 * time.Minute

// control serves the commands about the membership and the snapshots.
type control struct {
	cluster *cluster.Cluster
	server  *http.Server
	wg      sync.WaitGroup
}

// serveControl opens the socket. Without a data directory there is none.
func (a *App) serveControl() (*control, error) {
	dir := a.cfg.Cluster.DataDir
	if dir == "" || a.cfg.Control == ControlNone {
		return nil, nil
	}
	if len(dir) > longestSocketPath {
		a.log.Info("no control socket: the path of the data directory is too long", "data_dir", dir)
		return nil, nil
	}
	path := filepath.Join(dir, controlSocket)
	// The directory is locked: a socket that is there was left by a dead process.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	c := &control{cluster: a.cluster}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /members", c.members)
	mux.HandleFunc("POST /members", c.add)
	mux.HandleFunc("DELETE /members/{id}", c.remove)
	mux.HandleFunc("POST /transfer", c.transfer)
	mux.HandleFunc("GET /snapshot", c.snapshot)
	if a.cfg.ControlRoutes != nil {
		a.cfg.ControlRoutes(mux, a.replica)
	}
	c.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	c.wg.Go(func() { _ = c.server.Serve(l) })
	return c, nil
}

func (c *control) close() {
	if c == nil {
		return
	}
	_ = c.server.Close()
	c.wg.Wait()
}

func (c *control) answer(w http.ResponseWriter, v any, err error) {
	if err == nil {
		_ = json.NewEncoder(w).Encode(v)
		return
	}
	text := err.Error()
	if errors.Is(err, cluster.ErrNotLeader) {
		text = "this replica does not lead"
		if l, ok := c.cluster.Leader(); ok {
			text += "; the leader is " + l.ID + " at " + l.HTTPAddr
		}
	}
	http.Error(w, text, http.StatusConflict)
}

func (c *control) members(w http.ResponseWriter, _ *http.Request) {
	c.answer(w, c.cluster.Members(), nil)
}

func (c *control) add(w http.ResponseWriter, r *http.Request) {
	var m cluster.Member
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&m)
	if err == nil && (m.ID == "" || m.RaftAddr == "") {
		err = errors.New("a member has an id and an address")
	}
	if err == nil {
		err = c.cluster.AddMember(r.Context(), m)
	}
	c.answer(w, struct{}{}, err)
}

func (c *control) remove(w http.ResponseWriter, r *http.Request) {
	c.answer(w, struct{}{}, c.cluster.RemoveMember(r.Context(), r.PathValue("id")))
}

func (c *control) transfer(w http.ResponseWriter, r *http.Request) {
	c.answer(w, struct{}{}, c.cluster.TransferLeadership(r.Context(), r.FormValue("to")))
}

func (c *control) snapshot(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := c.cluster.SnapshotTo(r.Context(), w); err != nil {
		panic(http.ErrAbortHandler) // a cut snapshot must not look whole
	}
}

// Control reaches the replica that runs on a data directory of this machine.
type Control struct{ http *http.Client }

// OpenControl makes the client of a data directory's control socket.
func OpenControl(dataDir string) *Control {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dataDir, controlSocket))
	}
	return &Control{&http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		Timeout:   controlTimeout,
	}}
}
