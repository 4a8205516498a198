package testcluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"

	"quorate/api/client"
	"quorate/api/neon"
)

// Ledger remembers which writes were acknowledged, to compare them with what is
// there afterwards. A write whose outcome is unknown may or may not be there.
type Ledger struct {
	mu      sync.Mutex
	tenants map[neon.TenantID]*entry
	acks    int
}

// entry is what is known of one tenant.
type entry struct {
	shards int
	// shard counts that splits without an acknowledgement may have led to
	splits  []int
	created bool                // acknowledged
	deletes int                 // tries to delete, whatever their outcome
	deleted bool                // acknowledged
	away    bool                // may have been put away: such a tenant is not listed
	configs []neon.TenantConfig // any of these may be in force
	writers int                 // changes of the configuration under way
	unsure  bool                // a change of the configuration that cannot be followed

	timelines map[neon.TimelineID]bool // false: a deletion was tried
	gone      map[neon.TimelineID]bool // whose deletion was acknowledged
}

// NewLedger makes an empty ledger.
func NewLedger() *Ledger { return &Ledger{tenants: make(map[neon.TenantID]*entry)} }

// Acknowledged is how many writes were acknowledged.
func (l *Ledger) Acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks
}

// MaySplit tells that a tenant may come to have more shards without a request.
func (l *Ledger) MaySplit(t neon.TenantID, shards int) {
	l.change(t, func(e *entry) { e.splits = append(e.splits, shards) })
}

// Again tells that a tenant is to be created under the id of one that was deleted.
func (l *Ledger) Again(t neon.TenantID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.tenants, t)
}

// change records something about a tenant. A nil ledger records nothing.
func (l *Ledger) change(t neon.TenantID, f func(*entry)) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.tenants[t]
	if e == nil {
		e = &entry{
			timelines: make(map[neon.TimelineID]bool), gone: make(map[neon.TimelineID]bool),
		}
		l.tenants[t] = e
	}
	f(e)
}

func (l *Ledger) ack(t neon.TenantID, err error, f func(*entry)) {
	if err == nil {
		l.change(t, func(e *entry) { l.acks++; f(e) })
	}
}

// Verify asks a client for everything and compares. The error lists the first
// ten differences.
func (l *Ledger) Verify(ctx context.Context, c *Client) error {
	list, err := c.Tenants().List(ctx, neon.TenantID{}, 0)
	if err != nil {
		return fmt.Errorf("verify acknowledged writes: %w", err)
	}
	there := make(map[neon.TenantID]neon.TenantDescribe, len(list))
	for _, d := range list {
		there[d.Tenant] = d
	}
	var wrong []error
	for t, e := range l.copy() {
		d, ok := there[t]
		if err := e.compare(t, d, ok); err != nil {
			wrong = append(wrong, err)
			continue
		}
		if ok && e.created && d.Policy.Kind == neon.PlaceAttached {
			wrong = append(wrong, e.compareTimelines(ctx, c, t)...)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	head := fmt.Errorf("%d acknowledged writes are missing", len(wrong))
	return errors.Join(append([]error{head}, wrong[:min(10, len(wrong))]...)...)
}

func (l *Ledger) copy() map[neon.TenantID]entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[neon.TenantID]entry, len(l.tenants))
	for t, e := range l.tenants {
		c := *e
		c.configs, c.splits = slices.Clone(e.configs), slices.Clone(e.splits)
		c.timelines, c.gone = maps.Clone(e.timelines), maps.Clone(e.gone)
		out[t] = c
	}
	return out
}

func (e *entry) compare(t neon.TenantID, d neon.TenantDescribe, there bool) error {
	switch {
	case e.deleted && there:
		return fmt.Errorf("tenant %s was deleted and is there", t)
	case e.deleted || !e.created:
		return nil
	case !there && e.deletes == 0 && !e.away:
		return fmt.Errorf("tenant %s was created and is not there", t)
	case !there:
		return nil
	case len(d.Shards) < e.shards,
		len(d.Shards) != e.shards && !slices.Contains(e.splits, len(d.Shards)):
		return fmt.Errorf("tenant %s was created with %d shards and has %d", t, e.shards,
			len(d.Shards))
	case e.unsure || len(e.configs) == 0:
		return nil
	}
	for _, c := range e.configs {
		if string(c.JSON()) == string(d.Config.JSON()) {
			return nil
		}
	}
	return fmt.Errorf("tenant %s has the configuration %s, which was replaced", t, d.Config.JSON())
}

func (e *entry) compareTimelines(ctx context.Context, c *Client, t neon.TenantID) (wrong []error) {
	if len(e.timelines)+len(e.gone) == 0 {
		return nil
	}
	list, err := c.Timelines().IDs(ctx, t)
	if client.StatusOf(err) == http.StatusNotFound && e.deletes > 0 {
		return nil
	}
	if err != nil {
		return []error{fmt.Errorf("timelines of tenant %s: %w", t, err)}
	}
	for tl, kept := range e.timelines {
		there := slices.Contains(list, tl)
		if kept && !there {
			wrong = append(wrong,
				fmt.Errorf("timeline %s of tenant %s was created and is not there", tl, t))
		}
	}
	for tl := range e.gone {
		if slices.Contains(list, tl) {
			wrong = append(wrong,
				fmt.Errorf("timeline %s of tenant %s was deleted and is there", tl, t))
		}
	}
	return wrong
}
