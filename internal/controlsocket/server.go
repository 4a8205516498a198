// Package controlsocket lets commands on the same machine reach a running replica: the
// membership, hand-overs of leadership and snapshots. It is a Unix socket in the data
// directory, so that whoever may open the directory may use it.
//
// It knows the cluster and nothing of what is replicated.
package controlsocket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/internal/serve"
)

// timeout bounds one command. Adding a member takes longest: it returns when the member
// has caught up and votes.
const timeout = 10 * time.Minute

// Route is a further command.
type Route struct {
	Pattern string
	Handler http.HandlerFunc
}

// Members lists and changes the members, and hands leadership over.
type Members interface {
	changer
	List(ctx context.Context) neon.Cluster
	Transfer(ctx context.Context, to string) error
}

type changer interface {
	Add(ctx context.Context, r neon.MemberAdd) (neon.MemberAdded, error)
	Remove(ctx context.Context, id string) error
	Replace(ctx context.Context, old string, r neon.MemberAdd) (neon.MemberAdded, error)
}

// Cluster is the replica that the commands reach.
type Cluster interface {
	Leader() (cluster.LeaderInfo, bool)
	OpenSnapshot(ctx context.Context, mode cluster.SaveMode) (*cluster.SavedState, error)
}

// Options are what a Server is made of.
type Options struct {
	Dir     string // the data directory, whose lock the caller holds
	Cluster Cluster
	Members Members
	Logger  *slog.Logger
}

// Server serves the commands.
type Server struct {
	cluster Cluster
	admin   Members
	server  *http.Server
	release func() // of the socket's address
	wg      sync.WaitGroup
}

// Listen opens the socket in a data directory and serves on it. If no socket can be in the
// directory, the result is nil, which may be closed.
func Listen(o Options, more ...Route) (*Server, error) {
	path, release, err := address(o.Dir)
	if errors.Is(err, errPathTooLong) {
		o.Logger.Warn("no control socket", "data_dir", o.Dir, "err", err)
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The directory is locked, so a socket that is there was left by a dead process.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		release()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		release()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &Server{cluster: o.Cluster, admin: o.Members, release: release}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /members", s.members)
	mux.HandleFunc("POST /members", s.add)
	mux.HandleFunc("DELETE /members/{id}", s.remove)
	mux.HandleFunc("POST /members/{id}/replace", s.replace)
	mux.HandleFunc("POST /transfer", s.transfer)
	mux.HandleFunc("GET /snapshot", s.snapshot)
	for _, r := range more {
		mux.HandleFunc(r.Pattern, r.Handler)
	}
	s.server = &http.Server{
		Handler: serve.GiveUpOnSlowReaders(mux), ReadHeaderTimeout: 10 * time.Second,
	}
	s.wg.Go(func() { _ = s.server.Serve(l) })
	return s, nil
}

// Close ends the commands under way and joins them.
func (s *Server) Close() {
	if s == nil {
		return
	}
	_ = s.server.Close()
	s.wg.Wait()
	s.release()
}

func (s *Server) answer(w http.ResponseWriter, v any, err error) {
	if err == nil {
		_ = json.NewEncoder(w).Encode(v)
		return
	}
	text := err.Error()
	if errors.Is(err, cluster.ErrNotLeader) {
		text = "this replica does not lead"
		if l, ok := s.cluster.Leader(); ok {
			text += "; the leader is " + l.ID + ". Give the command where that runs, or to any " +
				"replica with `storcon_cli --api " + l.HTTPAddr + " cluster`"
		}
	}
	http.Error(w, text, http.StatusConflict)
}

func (s *Server) members(w http.ResponseWriter, r *http.Request) {
	s.answer(w, s.admin.List(r.Context()), nil)
}

// largest bounds a body in bytes.
const largest = 1 << 16

func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	var m neon.MemberAdd
	var added neon.MemberAdded
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, largest)).Decode(&m)
	if err == nil {
		added, err = s.admin.Add(r.Context(), m)
	}
	s.answer(w, added, err)
}

func (s *Server) replace(w http.ResponseWriter, r *http.Request) {
	var m neon.MemberAdd
	var added neon.MemberAdded
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, largest)).Decode(&m)
	if err == nil {
		added, err = s.admin.Replace(r.Context(), r.PathValue("id"), m)
	}
	s.answer(w, added, err)
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	s.answer(w, struct{}{}, s.admin.Remove(r.Context(), r.PathValue("id")))
}

func (s *Server) transfer(w http.ResponseWriter, r *http.Request) {
	s.answer(w, struct{}{}, s.admin.Transfer(r.Context(), r.FormValue("to")))
}

// infoHeader has the cluster.SnapshotInfo of the snapshot that follows, in JSON.
const infoHeader = "Snapshot-Info"

func (s *Server) snapshot(w http.ResponseWriter, r *http.Request) {
	mode := cluster.SaveNewest
	if r.FormValue("stale") != "" {
		mode = cluster.SaveStale
	}
	saved, err := s.cluster.OpenSnapshot(r.Context(), mode)
	if err != nil {
		s.answer(w, nil, err)
		return
	}
	defer saved.Close()
	info, err := json.Marshal(saved.Info())
	if err != nil {
		s.answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(infoHeader, string(info))
	if err := saved.Write(r.Context(), w); err != nil {
		panic(http.ErrAbortHandler) // a cut snapshot must not look whole
	}
}
