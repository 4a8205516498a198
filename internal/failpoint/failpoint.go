// Package failpoint lets tests make a running process wait, fail or end at points
// that have a name. A point does nothing until it is given actions.
//
// Actions are written as `[p%][n*]action[(argument)]`, several joined by `->`: the
// first whose probability p comes true, and which was not yet taken n times, is
// taken. The actions are off, return, sleep(ms), delay(ms), yield, print, pause,
// panic and exit; the last two end the process.
package failpoint

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Registry are the points of one process. The nil Registry has none and takes
// none.
type Registry struct {
	log  *slog.Logger
	exit func(why string)

	mu     sync.Mutex
	points map[string]*point
}

// New makes a Registry. exit ends the process; it may return in tests.
func New(log *slog.Logger, exit func(why string)) *Registry {
	return &Registry{log: log, exit: exit, points: make(map[string]*point)}
}

// point is one name with actions.
type point struct {
	actions []action
	resume  chan struct{} // closed when the actions are replaced
}

type kind string

const (
	off    kind = "off"
	give   kind = "return"
	sleep  kind = "sleep"
	delay  kind = "delay"
	yield  kind = "yield"
	output kind = "print"
	pause  kind = "pause"
	crash  kind = "panic"
	exit   kind = "exit"
)

type action struct {
	kind    kind
	percent float64 // 100: always
	left    int     // -1: for ever
	arg     string
}

// Configure replaces the actions of a point. Those who wait there go on.
func (r *Registry) Configure(name, actions string) error {
	list, err := parse(actions)
	if err != nil {
		return err
	}
	r.log.Info("cfg failpoint: " + name + " " + actions)
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.points[name]; old != nil {
		close(old.resume)
	}
	r.points[name] = &point{actions: list, resume: make(chan struct{})}
	return nil
}

// Pausable is a point at which the process can be held. It says so in the log
// whenever it is passed. The error is that of ctx.
func (r *Registry) Pausable(ctx context.Context, name string) error {
	if r == nil {
		return nil
	}
	r.log.Info("at failpoint " + name)
	_, _, err := r.take(ctx, name)
	return err
}

// Sleep is a point at which `return(ms)` makes the process wait for so many
// milliseconds. The error is that of ctx.
func (r *Registry) Sleep(ctx context.Context, name string) error {
	arg, hit, err := r.take(ctx, name)
	if !hit || err != nil {
		return err
	}
	ms, err := strconv.ParseUint(arg, 10, 31)
	if err != nil {
		return fmt.Errorf("failpoint %s: %q is not a number of milliseconds", name, arg)
	}
	d := time.Duration(ms) * time.Millisecond
	r.log.Info(fmt.Sprintf("failpoint %q: sleeping for %s", name, d))
	err = wait(ctx, nil, d)
	r.log.Info(fmt.Sprintf("failpoint %q: sleep done", name))
	return err
}

// Return is a point at which `return(argument)` makes the caller fail, in a way of
// its own.
func (r *Registry) Return(ctx context.Context, name string) (arg string, hit bool, err error) {
	return r.take(ctx, name)
}

// Armed reports whether a point has actions that do something, now or later.
func (r *Registry) Armed(name string) bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.points[name]
	return p != nil &&
		slices.ContainsFunc(p.actions, func(a action) bool { return a.kind != off && a.left != 0 })
}

// take takes the action whose turn it is.
func (r *Registry) take(ctx context.Context, name string) (arg string, hit bool, err error) {
	a, resume := r.next(name)
	switch a.kind {
	case give:
		return a.arg, true, nil
	case sleep, delay:
		ms, _ := strconv.ParseUint(a.arg, 10, 31) // was parsed before
		return "", false, wait(ctx, nil, time.Duration(ms)*time.Millisecond)
	case pause:
		return "", false, wait(ctx, resume, 0)
	case output:
		r.log.Info("failpoint " + name + " executed")
	case crash, exit:
		r.exit("failpoint " + name)
	}
	return "", false, nil
}

func (r *Registry) next(name string) (action, <-chan struct{}) {
	if r == nil {
		return action{kind: off}, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.points[name]
	if p == nil {
		return action{kind: off}, nil
	}
	for i := range p.actions {
		a := &p.actions[i]
		if a.left == 0 || a.percent < 100 && rand.Float64()*100 >= a.percent {
			continue
		}
		if a.left > 0 {
			a.left--
		}
		return *a, p.resume
	}
	return action{kind: off}, nil
}

// wait returns after d, or, when that is zero, once resume is closed.
func wait(ctx context.Context, resume <-chan struct{}, d time.Duration) error {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	} else if resume == nil {
		return ctx.Err()
	}
	select {
	case <-after:
		return nil
	case <-resume:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func parse(text string) (list []action, err error) {
	for part := range strings.SplitSeq(text, "->") {
		a, err := parseAction(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

func parseAction(text string) (a action, err error) {
	a = action{percent: 100, left: -1}
	rest := text
	if before, after, ok := strings.Cut(rest, "("); ok {
		if rest = before; !strings.HasSuffix(after, ")") {
			return a, fmt.Errorf("parenthesis do not match in %q", text)
		}
		a.arg = strings.TrimSuffix(after, ")")
	}
	if before, after, ok := strings.Cut(rest, "%"); ok {
		if a.percent, err = strconv.ParseFloat(before, 64); err != nil ||
			!(a.percent >= 0 && a.percent <= 100) {
			return a, fmt.Errorf("failed to parse frequency in %q", text)
		}
		rest = after
	}
	if before, after, ok := strings.Cut(rest, "*"); ok {
		if a.left, err = strconv.Atoi(before); err != nil || a.left < 0 {
			return a, fmt.Errorf("failed to parse count in %q", text)
		}
		rest = after
	}
	a.kind = kind(strings.TrimSpace(rest))
	switch a.kind {
	case off, give, yield, output, pause, crash, exit:
		return a, nil
	case sleep, delay:
		if _, err := strconv.ParseUint(a.arg, 10, 31); err != nil {
			return a, fmt.Errorf("%s require timeout in %q", a.kind, text)
		}
		return a, nil
	}
	return a, fmt.Errorf("unrecognized command %q in %q", a.kind, text)
}
