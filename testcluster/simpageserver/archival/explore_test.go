package archival

import (
	"fmt"
	"strings"
	"testing"
)

// crashes is how often the pageserver may die in one history.
const crashes = 2

// world is a timeline with all that take steps: the uploads, clients that make
// changes one after another and repeat each until it is acknowledged, the background
// work that offloads again and again, a client that deletes the timeline, another that
// splits its shard, and now and then the death of the process.
type world struct {
	t       Timeline
	offload Offload
	running bool // an offload
	clients [2]client
	crashes int
	removal removal
	split   split
}

type client struct {
	change  Change
	made    int  // changes that were acknowledged
	unheard bool // the answer is not waited for any more
	late    bool // a request that was given up may still arrive
}

// program is what all of them want.
type program struct {
	clients [2][]bool // one after another; true is archived
	deletes bool
	splits  bool

	// What must not be.
	unguarded bool // the deletion does not take the guard
	copies    bool // nor does the split
	unfrozen  bool // requests begin, and are answered, while the shard is split
}

func (p program) done(w world) bool {
	return w.clients[0].made == len(p.clients[0]) && w.clients[1].made == len(p.clients[1]) &&
		(!p.deletes || w.removal.done) && (!p.splits || w.split.done)
}

// restored reports whether the last word was to bring the timeline back.
func (p program) restored() bool {
	return len(p.clients[1]) == 0 && !p.clients[0][len(p.clients[0])-1]
}

// answered reports whether all requests are, for good.
func (p program) answered(w world) bool {
	return w.clients[0].made == len(p.clients[0]) && w.clients[1].made == len(p.clients[1])
}

// moves are all worlds that one step of any of them leads to.
func moves(w world, order Order, wishes program) (next map[string]world) {
	next = map[string]world{}
	switch n := w; {
	case w.t.Flying:
		n.t.EndUpload()
		next["uploaded"] = n
	case w.t.Pending():
		n.t.BeginUpload()
		next["upload"] = n
	}
	for i := range w.clients {
		if n, ok := w.request(i, wishes); ok {
			next[fmt.Sprint("client ", i)] = n
		}
	}
	if n, ok := w.remove(wishes); ok {
		next["remove"] = n
	}
	if n, ok := w.divide(wishes); ok {
		next["split"] = n
	}
	switch {
	case w.running && w.offload.Waits(w.t):
	case w.running:
		n := w
		_ = n.offload.Next(&n.t, order) // what it could not do, it leaves
		if n.offload.Done() {
			n.offload, n.running = Offload{}, false
		}
		next["offload"] = n
	case w.t.Candidate() && !w.removal.absent:
		n := w
		n.running = true
		next["decide"] = n
	}
	if w.crashes < crashes {
		n := w.restarted(w.t.Index, w.t.Manifest)
		n.crashes++
		next["crash"] = n
	}
	return next
}

// request takes the next step of a client.
func (w world) request(i int, wishes program) (world, bool) {
	c := w.clients[i]
	begins := c.change == Change{}
	switch {
	case c.made == len(wishes.clients[i]), c.change.Waits(w.t),
		begins && w.split.frozen && !wishes.unfrozen && !c.late:
		return w, false
	case w.removal.hides(w.t, c.change):
		if w.t.Taken == Loading {
			w.t.Taken = Free
		}
		w.clients[i] = client{made: len(wishes.clients[i])} // there is no such timeline
		return w, true
	}
	if begins {
		c.unheard, c.late = c.late, false
	}
	c.change.Archive = wishes.clients[i][c.made]
	if err := c.change.Next(&w.t); err != nil {
		c.change, c.unheard = Change{}, false // and again
	} else if c.change.Done() {
		if !c.unheard {
			c.made++
		}
		c.change, c.unheard = Change{}, false
	}
	w.clients[i] = c
	return w, true
}

// restarted is the world after everything in memory was read from remote storage anew.
func (w world) restarted(index, manifest bool) world {
	n := world{
		t: Attached(index, manifest), crashes: w.crashes, removal: w.removal.restarted(manifest),
		split: split{done: w.split.done},
	}
	if n.removal.at != 0 {
		n.t.Taken, n.t.Stopping, n.t.Closed = Deleting, true, true
	}
	if n.removal.absent {
		n.t.Loaded = false
	}
	for i, c := range w.clients {
		n.clients[i].made = c.made
	}
	return n
}

// broken says which promise a world breaks.
func broken(w world, wishes program) string {
	gone := w.removal.deleted || w.removal.removed
	switch {
	case !w.running && w.removal.at == 0 && w.t.Stopping:
		return "stopped, and nobody is going to start it"
	case !gone && w.t.Manifest && !w.t.Index:
		return "offloaded in the manifest, in use in the index"
	case !gone && w.removal.at == 0 && wishes.answered(w) && wishes.restored() && !w.t.Active():
		return "acknowledged as brought back, and not in use"
	case gone && !w.removal.absent && w.t.Active():
		return "deleted, and in use"
	case w.removal.done && (!w.removal.removed || w.t.Manifest || !w.removal.absent):
		return "gone, and not forgotten"
	}
	return ""
}

// outcome is what all interleavings come to.
type outcome struct {
	worlds, steps int
	stuck         int      // worlds from which the clients never get their way
	breaks        []string // promise: the shortest history that breaks it
}

// explore runs all interleavings.
func explore(order Order, wishes program) (o outcome) {
	start := world{t: Attached(true, false)}
	from := map[world]world{start: start}
	by := map[world]string{}
	back := map[world][]world{}
	seen := map[string]bool{}
	for todo := []world{start}; len(todo) > 0; {
		w := todo[0]
		todo = todo[1:]
		o.worlds++
		if b := broken(w, wishes); b != "" && !seen[b] {
			seen[b] = true
			o.breaks = append(o.breaks, b+": "+history(w, from, by))
		}
		for step, n := range moves(w, order, wishes) {
			o.steps++
			back[n] = append(back[n], w)
			if _, known := from[n]; !known {
				from[n], by[n] = w, step
				todo = append(todo, n)
			}
		}
	}
	o.stuck = len(from) - len(reaching(from, back, wishes))
	return o
}

func history(w world, from map[world]world, by map[world]string) string {
	var steps []string
	for ; by[w] != ""; w = from[w] {
		steps = append([]string{by[w]}, steps...)
	}
	return strings.Join(steps, ", ")
}

// reaching are the worlds from which the clients can still get their way.
func reaching(all map[world]world, back map[world][]world, wishes program) map[world]bool {
	good := map[world]bool{}
	var todo []world
	for w := range all {
		if wishes.done(w) {
			good[w] = true
			todo = append(todo, w)
		}
	}
	for len(todo) > 0 {
		w := todo[0]
		todo = todo[1:]
		for _, p := range back[w] {
			if !good[p] {
				good[p] = true
				todo = append(todo, p)
			}
		}
	}
	return good
}

// programs begin with an archived timeline.
var programs = []program{
	asks([]bool{false}, nil), asks([]bool{false, true}, nil), asks([]bool{false, true, false}, nil),
	asks([]bool{true, false}, nil),
	asks([]bool{false, true, false, true, false}, nil), asks([]bool{false}, []bool{true}),
	asks([]bool{false, true, false}, []bool{true, false}),
}

func asks(one, other []bool) program { return program{clients: [2][]bool{one, other}} }

// TestArbiterNeverStrandsATimeline: in no interleaving of uploads, offloads, requests
// and deaths is a promise broken, and from everywhere the clients can get their way.
func TestArbiterNeverStrandsATimeline(t *testing.T) {
	worlds := 0
	for _, wishes := range programs {
		o := explore(Arbiter, wishes)
		if len(o.breaks) > 0 || o.stuck > 0 {
			t.Errorf("%v: %d worlds are stuck; %s", wishes, o.stuck, strings.Join(o.breaks, "\n"))
		}
		t.Logf("%+v: %d worlds, %d steps", wishes, o.worlds, o.steps)
		worlds += o.worlds
	}
	if worlds < 1000 {
		t.Errorf("only %d worlds", worlds)
	}
}

// TestOtherOrdersStrandIt: what the arbiter prevents does happen without it.
func TestOtherOrdersStrandIt(t *testing.T) {
	const stopped, contradiction, undone = "stopped, and nobody", "offloaded in the manifest, in use", "acknowledged as brought back, and not"
	for order, want := range map[Order][]string{
		StopFirst: {stopped, undone},
		LookTwice: {undone},
		CleanOnly: {contradiction},
	} {
		all := ""
		for _, wishes := range programs {
			o := explore(order, wishes)
			all += fmt.Sprintf("%v: %d of %d worlds stuck\n%s\n", wishes, o.stuck, o.worlds,
				strings.Join(o.breaks, "\n"))
		}
		for _, w := range want {
			if !strings.Contains(all, w) {
				t.Errorf("order %d never came to %q:\n%s", order, w, all)
			}
		}
		t.Logf("order %d\n%s", order, all)
	}
}
