package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// maxTermStep is how far a term may be above this server's own. With an election each
	// 400 ms it would take 54 years.
	maxTermStep = 1 << 32
	// maxTerm and maxIndex are never reached. Above them there must be room: a term that
	// cannot grow leaves a cluster without a leader for ever.
	maxTerm  = 1 << 62
	maxIndex = 1 << 62
)

var errAbsurd = errors.New("absurd raft call")

// plausible reports whether raft may see a call. It answers the others.
func (t *transport) plausible(rpc raft.RPC) bool {
	err := absurdity(rpc.Command, t.hooks.term())
	if err != nil {
		t.hooks.refused(err)
		rpc.Respond(nil, err)
	}
	return err == nil
}

// answered checks the term in the answer to a call.
func (t *transport) answered(err error, term uint64) error {
	if err == nil {
		if err = absurdTerm(term, t.hooks.term()); err != nil {
			t.hooks.refused(err)
		}
	}
	return err
}

func absurdTerm(term, own uint64) error {
	if term > maxTerm || term > own && term-own > maxTermStep {
		return fmt.Errorf("%w: term %d, and this server is in term %d", errAbsurd, term, own)
	}
	return nil
}

// absurdity says what no server of this software would send.
func absurdity(command any, own uint64) error {
	switch c := command.(type) {
	case *raft.RequestVoteRequest:
		return absurdTerm(c.Term, own)
	case *raft.RequestPreVoteRequest:
		return absurdTerm(c.Term, own)
	case *raft.InstallSnapshotRequest:
		if c.LastLogIndex > maxIndex || c.LastLogTerm > c.Term || c.Size < 0 ||
			c.Size > maxSnapshotBytes || c.SnapshotVersion != raft.SnapshotVersionMax ||
			!decodable(c.Configuration) {
			return fmt.Errorf("%w: a snapshot of %d bytes up to entry %d of term %d", errAbsurd,
				c.Size, c.LastLogIndex, c.LastLogTerm)
		}
		return absurdTerm(c.Term, own)
	case *raft.AppendEntriesRequest:
		if err := absurdTerm(c.Term, own); err != nil {
			return err
		}
		return absurdEntries(c)
	}
	return nil
}

// absurdEntries checks that the entries follow each other, and the one before them. Raft
// panics on entries of unknown kinds, and on a membership that it cannot decode.
func absurdEntries(c *raft.AppendEntriesRequest) error {
	for i, e := range c.Entries {
		if e == nil || e.Index > maxIndex || e.Index != c.PrevLogEntry+1+uint64(i) ||
			e.Term > c.Term {
			return fmt.Errorf("%w: entry %d of %d after entry %d is not the next, or of a later term",
				errAbsurd, i+1, len(c.Entries), c.PrevLogEntry)
		}
		ok := false
		switch e.Type {
		case raft.LogCommand:
			ok = intactFrame(e.Data)
		case raft.LogConfiguration:
			ok = decodable(e.Data)
		case raft.LogNoop, raft.LogBarrier:
			ok = true
		}
		if !ok {
			return fmt.Errorf("%w: entry %d of kind %v is damaged", errAbsurd, e.Index, e.Type)
		}
	}
	return nil
}

// decodable reports whether raft can decode a membership. Its decoder panics.
func decodable(membership []byte) (ok bool) {
	defer func() { ok = recover() == nil }()
	raft.DecodeConfiguration(membership)
	return true
}

// absurdities says once a minute that there were some.
type absurdities struct {
	log *slog.Logger

	mu    sync.Mutex
	said  time.Time
	count int // since then
}

func newAbsurdities(log *slog.Logger) *absurdities { return &absurdities{log: log} }

func (a *absurdities) refused(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count++
	if time.Since(a.said) < time.Minute {
		return
	}
	a.log.Warn("refused what no member of this cluster sends; see who can reach the raft port",
		"err", err, "count", a.count)
	a.said, a.count = time.Now(), 0
}
