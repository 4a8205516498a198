package fsmtest

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

const (
	// perSubject is how many commands of one kind may be proposed about one thing in a
	// second. The shortest pause between two tries of anything is 50 ms, and several
	// replicas and clients may try at the same time.
	perSubject = 60

	// perThing bounds the commands of one kind in a second by the size of the fleet:
	// that many for each thing in it, and perSubject more.
	perThing = 8

	// perCall is how many calls of one kind about one thing may be made in a second, and
	// how many connections to one address may be tried: all shards of a node may try at the
	// same time, and a step that fails is tried again after 50 ms.
	perCall = 2000
)

// Pace finds loops without a pause. It counts the commands of each kind in every second:
// all of them, and those about one shard, tenant, timeline or node. So it does with calls.
// The zero value is ready to use.
type Pace struct {
	// Size is the number of things that there are: shards, tenants, timelines, nodes.
	// Nil: only the commands about one thing are bounded.
	Size func() int

	mu     sync.Mutex
	second time.Time // when the present one began
	counts map[count]int
	found  map[count]bool // was told before
}

// count names what is counted. Without a subject it is all commands of a kind.
type count struct {
	kind    string
	subject any
}

// Note counts a command that is about to be proposed. An error tells of the first one
// too many of its kind. Each one too many waits for the next second: in virtual time
// a loop without a pause would never end.
func (p *Pace) Note(c fsm.Command) error {
	err, over := p.note(c)
	if over {
		_ = wait.Sleep(context.Background(), time.Second)
	}
	return err
}

// Call counts a call that is about to be made, by what is called, as Note counts commands.
func (p *Pace) Call(what string) error {
	of := count{kind: "call", subject: what}
	p.mu.Lock()
	p.begin()
	p.counts[of]++
	over := p.counts[of] > perCall
	var err error
	if over && p.tell(of) {
		err = fmt.Errorf("%s: %d times within %s, at most %d may be", what, p.counts[of],
			time.Since(p.second), perCall)
	}
	p.mu.Unlock()
	if over {
		_ = wait.Sleep(context.Background(), time.Second)
	}
	return err
}

// begin begins a new second if one is over. The caller holds the lock.
func (p *Pace) begin() {
	if now := time.Now(); now.Sub(p.second) >= time.Second || p.counts == nil {
		p.second, p.counts = now, make(map[count]int)
	}
}

// tell reports whether something was not told before. The caller holds the lock.
func (p *Pace) tell(of count) bool {
	if p.found[of] {
		return false
	}
	if p.found == nil {
		p.found = make(map[count]bool)
	}
	p.found[of] = true
	return true
}

func (p *Pace) note(c fsm.Command) (err error, over bool) {
	kind := reflect.TypeOf(c).Name()
	most := 0
	if p.Size != nil {
		most = perThing*p.Size() + perSubject
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin()
	add := func(of count, limit int, about string) {
		if p.counts[of]++; p.counts[of] <= limit || limit == 0 {
			return
		}
		over = true
		if p.tell(of) {
			err = fmt.Errorf("%s was proposed %d times within %s%s, at most %d may be: %+v", kind,
				p.counts[of], time.Since(p.second), about, limit, c)
		}
	}
	add(count{kind: kind}, most, "")
	for _, subject := range subjects(c) {
		add(count{kind, subject}, perSubject, fmt.Sprintf(" about %v", subject))
	}
	return err, over
}

// subjects are the things that a command is about: its own, or those of its items.
func subjects(c fsm.Command) (all []any) {
	v := reflect.ValueOf(c)
	if name := nameOf(v); name != nil {
		return []any{name}
	}
	for i := range v.NumField() {
		for f, k := v.Field(i), 0; f.Kind() == reflect.Slice && k < f.Len(); k++ {
			if item := f.Index(k); item.Kind() == reflect.Struct {
				all = append(all, nameOf(item))
			}
		}
	}
	if all == nil {
		return []any{"itself"}
	}
	return all
}

// nameOf is the shard, else the tenant, else the node that a record names.
func nameOf(record reflect.Value) (name any) {
	for i := range record.NumField() {
		switch f := record.Field(i).Interface().(type) {
		case neon.ShardID:
			return f
		case neon.TenantID:
			name = f
		case neon.NodeID:
			if name == nil {
				name = f
			}
		}
	}
	return name
}
