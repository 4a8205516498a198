package archival

import (
	"fmt"
	"strings"
	"testing"
)

// removal is the deletion of the timeline, by a client that asks until it hears that
// there is no such timeline. It takes the guard that offloads and loads take, stops
// the timeline, marks the index, removes it, forgets the timeline, and corrects the
// manifest, in this order; what is marked is carried on by the next process.
type removal struct {
	at      uint8
	deleted bool // the index says so
	removed bool // there is no index
	absent  bool // in memory there is no such timeline
	done    bool // a client heard so
}

const (
	unasked uint8 = iota
	stopped       // and the queue is closed
	marked
	unindexed
	forgotten
)

// remove takes the next step of the deletion.
func (w world) remove(wishes program) (world, bool) {
	r := &w.removal
	if !wishes.deletes || r.done || r.at == unasked && w.split.frozen && !wishes.unfrozen {
		return w, false
	}
	switch r.at {
	case unasked:
		switch {
		case r.absent:
			r.done = true
		case w.t.Taken != Free && !wishes.unguarded:
			return w, false // it will be asked for again
		default:
			if !wishes.unguarded {
				w.t.Taken = Deleting
			}
			w.t.Stopping, w.t.Closed = w.t.Loaded, w.t.Loaded
			r.at = stopped
		}
	case stopped:
		if w.t.Flying {
			return w, false
		}
		w.t.Dirty = w.t.Clean // what was not uploaded never is
		r.deleted, r.at = true, marked
	case marked:
		r.removed, r.at = true, unindexed
	case unindexed:
		w.t = Timeline{
			Taken: w.t.Taken, Dirty: w.t.Index, Clean: w.t.Index, Index: w.t.Index,
			Manifest: w.t.Manifest,
		}
		r.absent, r.at = true, forgotten
	case forgotten:
		w.t.Manifest, r.at = false, unasked
		if !wishes.unguarded {
			w.t.Taken = Free
		}
	}
	return w, true
}

// hides reports whether a request finds no such timeline: none at all, or no index to
// load it from.
func (r removal) hides(t Timeline, c Change) bool {
	return r.absent || (r.deleted || r.removed) && c.at == loading
}

// restarted is what a new process makes of it: a timeline in the manifest is taken for
// one, whatever its index says, until it is asked for; of the others only those are known
// that have an index, and a marked one is removed.
func (r removal) restarted(manifest bool) removal {
	n := removal{
		deleted: r.deleted, removed: r.removed, absent: r.removed && !manifest, done: r.done,
	}
	if r.deleted && !r.removed && !manifest {
		n.at = marked
	}
	return n
}

// split is the split of the timeline's shard. The index of the timeline goes to the
// children once no upload can come after it, then the manifest, from memory; after
// that a child is in the place of the parent. The controller begins no request while
// it goes on, but those that it gave up before may still be carried out.
type split struct {
	at       uint8
	frozen   bool
	loaded   bool // when it began
	index    bool // of the child
	manifest bool
	done     bool
}

const (
	listed uint8 = iota + 1
	shut
	copied
	complete
)

// divide takes the next step of the split.
func (w world) divide(wishes program) (world, bool) {
	d := &w.split
	if !wishes.splits || d.done {
		return w, false
	}
	switch d.at {
	case unasked:
		if w.removal.at != unasked || w.removal.deleted || w.removal.absent {
			d.done = w.removal.absent // there is nothing to be copied
			return w, d.done
		}
		if w.t.Taken != Free && !wishes.copies {
			return w, false // refused, and asked for again
		}
		if d.frozen = true; !wishes.copies {
			w.t.Taken = Splitting
		}
		for i := range w.clients {
			begun := w.clients[i].change != Change{}
			w.clients[i].unheard, w.clients[i].late = begun &&
				!wishes.unfrozen, !begun && !wishes.unfrozen
		}
		d.loaded, d.at = w.t.Loaded, listed
	case listed:
		if d.loaded && (!w.t.Loaded || w.t.Closed) {
			// it fails, and the parent starts again
			return w.restarted(w.t.Index, w.t.Manifest), true
		}
		w.t.Closed = w.t.Closed || d.loaded
		d.at = shut
	case shut:
		if d.loaded && (w.t.Flying || w.t.Pending()) {
			return w, false
		}
		d.index, d.at = w.t.Index, copied
	case copied:
		d.manifest, d.at = !w.t.Loaded, complete
	case complete:
		n := w.restarted(d.index, d.manifest)
		n.split = split{done: true}
		return n, true
	}
	return w, true
}

// crowds are programs with others than clients.
func crowds() (all []program) {
	for _, clients := range [][2][]bool{
		{{false}}, {{true}}, {{false, true, false}}, {{false}, {true}},
		{{false, true}, {true, false}},
	} {
		all = append(all,
			program{clients: clients, deletes: true},
			program{clients: clients, splits: true},
			program{clients: clients, deletes: true, splits: true})
	}
	return all
}

// TestDeletionAndSplitStrandNothing: nor does what is deleted come back, nor is what
// was acknowledged lost on the children.
func TestDeletionAndSplitStrandNothing(t *testing.T) {
	worlds := 0
	for _, wishes := range crowds() {
		o := explore(Arbiter, wishes)
		if len(o.breaks) > 0 || o.stuck > 0 {
			t.Errorf("%+v: %d worlds are stuck; %s", wishes, o.stuck, strings.Join(o.breaks, "\n"))
		}
		t.Logf("%+v: %d worlds, %d steps", wishes, o.worlds, o.steps)
		worlds += o.worlds
	}
	if worlds < 10_000 {
		t.Errorf("only %d worlds", worlds)
	}
}

// TestWithoutTheirRulesTheyDo: each of the rules that a deletion and a split obey is
// needed, and the orders of an offload that are wrong are so beside them as well.
func TestWithoutTheirRulesTheyDo(t *testing.T) {
	const (
		stopped       = "stopped, and nobody"
		contradiction = "offloaded in the manifest, in use"
		undone        = "acknowledged as brought back, and not"
		back          = "deleted, and in use"
		left          = "gone, and not forgotten"
	)
	for name, c := range map[string]struct {
		order Order
		rule  func(*program)
		of    func(program) bool
		want  []string
	}{
		"deletion without the guard": {
			Arbiter, func(p *program) { p.unguarded = true },
			func(p program) bool { return p.deletes && !p.splits }, []string{back, left},
		},
		"split without the guard": {
			Arbiter, func(p *program) { p.copies = true },
			func(p program) bool { return p.splits && !p.deletes }, []string{contradiction},
		},
		"requests during a split": {
			Arbiter, func(p *program) { p.copies, p.unfrozen = true, true },
			func(p program) bool { return p.splits && !p.deletes }, []string{undone, contradiction},
		},
		"stop first, with deletion": {
			StopFirst, func(*program) {}, func(p program) bool { return p.deletes },
			[]string{stopped},
		},
		"stop first, with a split": {
			StopFirst, func(*program) {}, func(p program) bool { return p.splits },
			[]string{stopped},
		},
	} {
		all := ""
		for _, wishes := range crowds() {
			if c.of(wishes) {
				c.rule(&wishes)
				o := explore(c.order, wishes)
				all += fmt.Sprintf("%+v: %d of %d worlds stuck\n%s\n", wishes, o.stuck, o.worlds,
					strings.Join(o.breaks, "\n"))
			}
		}
		for _, w := range c.want {
			if !strings.Contains(all, w) {
				t.Errorf("%s never came to %q:\n%s", name, w, all)
			}
		}
		t.Logf("%s\n%s", name, all)
	}
}
