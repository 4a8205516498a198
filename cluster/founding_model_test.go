package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// This file explores founding exhaustively: three servers of one list, each of which may
// go away, come back, or come back with an empty disk, at every moment, and every order
// of the questions. What a server answers, and what it makes of an answer, is the code of
// founding.go. The rest is modelled: what survives on a disk, and which servers may make
// up a majority.
//
// It shows that no state is served while a disk holds an acknowledged one of another
// cluster, or a newer one of the same, and that founding ends when nothing interferes.

// The log of a server in the model.
const (
	logEmpty = iota
	logMembers
	logWritten // with an acknowledged write
)

// modelServer is a server and its disk. What follows phase is lost when it goes away.
type modelServer struct {
	present bool
	disk    int8    // which disk it has; 0 is the first
	log     int8    // what is on it
	cluster int8    // the cluster on the disk; 0: none
	known   [3]int8 // which disks of the others it knows, plus 1; 0: none

	phase  int8    // 0: asks, 1: asks for promises, -1: no list yet
	agreed [3]bool // who agreed in this phase
}

// model is the whole world. It is comparable, so that it is its own key.
type model struct {
	servers [3]modelServer
	founded int8         // ids of clusters that were made
	served  [maxIDs]bool // which of them have acknowledged a write
	wiped   int8         // disks that were emptied
}

const maxIDs = 5

// modelRules are the rules that the model follows. A mutant of the model breaks one.
type modelRules struct {
	gossip bool // the list is what was seen, as with Config.Expect
	wipes  int8 // how many disks may be emptied

	ignoreAbsent bool // mutant: a server that cannot be asked agrees
	ignoreState  bool // mutant: a server with state or a promise agrees
	anyoneVotes  bool // mutant: a server without a cluster answers raft
	noDisks      bool // mutant: no server remembers whose disk was whose
	noIDs        bool // mutant: members of two clusters talk
}

func (m model) String() string {
	var b strings.Builder
	for i, s := range m.servers {
		fmt.Fprintf(&b, "c%d present=%v disk=%d log=%d cluster=%d known=%v phase=%d agreed=%v\n",
			i+1, s.present, s.disk, s.log, s.cluster, s.known, s.phase, s.agreed)
	}
	return fmt.Sprintf("%sfounded=%d served=%v", b.String(), m.founded, m.served)
}

var modelMembers = []Member{
	{ID: "c1", RaftAddr: "c1:1"}, {ID: "c2", RaftAddr: "c2:1"}, {ID: "c3", RaftAddr: "c3:1"},
}

func modelID(n int8) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint("cluster ", n)
}

// members is the list of a server; nil while it does not know it.
func (m *model) members(i int) []Member {
	if m.servers[i].phase < 0 {
		return nil
	}
	return modelMembers
}

// connect is the greeting between two servers: each looks at the other's disk and
// cluster. It reports whether they talk.
func (m *model) connect(r modelRules, i, j int) bool {
	for _, pair := range [2][2]int{{i, j}, {j, i}} {
		me, other := &m.servers[pair[0]], m.servers[pair[1]]
		if !r.noIDs && foreign(modelID(me.cluster), modelID(other.cluster)) {
			return false
		}
		was := me.known[pair[1]]
		counts := me.log != logEmpty || !r.gossip // as a member, or as a founder
		if r.noDisks {
			continue
		}
		if was != 0 && was != other.disk+1 && counts {
			return false
		}
		me.known[pair[1]] = other.disk + 1
	}
	return true
}

// ask has server i ask server j, as askAll and try do.
func (m *model) ask(r modelRules, i, j int) {
	me, other := &m.servers[i], &m.servers[j]
	agrees := func() bool {
		if !other.present || other.phase < 0 || !m.connect(r, i, j) {
			return r.ignoreAbsent && !other.present
		}
		q := foundingQuestion{
			ID: modelMembers[i].ID, Disk: fmt.Sprint(me.disk), Members: modelMembers,
		}
		if me.phase == 1 {
			q.Cluster = modelID(me.cluster)
		}
		k := founder{
			empty: other.log == logEmpty, cluster: modelID(other.cluster), members: m.members(j),
		}
		if d := other.known[i]; d != 0 {
			k.disk = fmt.Sprint(d - 1)
		}
		if r.ignoreState {
			k.empty, k.cluster = true, ""
		}
		a, promise := k.answer(q)
		if promise {
			other.cluster = me.cluster
			a.Cluster = q.Cluster
		}
		return a.objection(modelMembers, modelID(me.cluster)) == ""
	}()
	if !agrees {
		me.phase, me.agreed = 0, [3]bool{}
		return
	}
	me.agreed[j] = true
	for k := range me.agreed {
		if k != i && !me.agreed[k] {
			return
		}
	}
	me.agreed = [3]bool{}
	switch {
	case i != 0:
		me.phase = 0 // the first of the list goes on
	case me.phase == 0:
		if me.cluster == 0 {
			if m.founded == maxIDs-1 {
				return
			}
			m.founded++
			me.cluster = m.founded
		}
		me.phase = 1
	default:
		me.phase, me.log = 0, logMembers
	}
}

// serve has server i lead with the vote of j, which gets its log, and acknowledge a
// write if that is wanted. It reports whether it can.
func (m *model) serve(r modelRules, i, j int, write bool) (can bool, wrong string) {
	me, other := &m.servers[i], &m.servers[j]
	same := me.cluster == other.cluster || r.anyoneVotes && other.cluster == 0
	if !me.present || !other.present || me.log == logEmpty || other.log > me.log || !same ||
		!m.connect(r, i, j) {
		return false, ""
	}
	for k, s := range m.servers {
		switch {
		case s.log != logWritten || k == i:
		case s.cluster != me.cluster:
			return true, fmt.Sprintf("c%d serves cluster %d, and c%d has acknowledged state of cluster %d",
				i+1, me.cluster, k+1, s.cluster)
		case me.log != logWritten:
			return true, fmt.Sprintf("c%d serves an empty state, and c%d has acknowledged state",
				i+1, k+1)
		}
	}
	if write {
		me.log = logWritten
		m.served[me.cluster] = true
	}
	other.log, other.cluster = me.log, me.cluster
	return true, ""
}

// next calls f with every state that may follow, and what is wrong with the step to it.
func (m model) next(r modelRules, f func(model, string)) {
	for i := range m.servers {
		s := m.servers[i]
		if !s.present {
			back := m
			back.servers[i].present = true
			f(back, "")
			if m.wiped < r.wipes {
				back.servers[i] = modelServer{present: true, disk: m.wiped + 1, phase: s.phase}
				back.wiped++
				f(back, "")
			}
			continue
		}
		gone := m
		gone.servers[i].present, gone.servers[i].phase = false, 0
		gone.servers[i].agreed = [3]bool{}
		if r.gossip {
			gone.servers[i].phase = -1
		}
		f(gone, "")
		if s.phase < 0 {
			if m.servers[0].present && m.servers[1].present && m.servers[2].present {
				seen := m
				seen.servers[i].phase = 0
				f(seen, "")
			}
		} else if s.log == logEmpty {
			for j := range m.servers {
				if j != i && !s.agreed[j] {
					asked := m
					asked.ask(r, i, j)
					f(asked, "")
				}
			}
		}
		for j := range m.servers {
			for _, write := range []bool{false, true} {
				led := m
				if j == i {
					continue
				}
				if can, wrong := led.serve(r, i, j, write); can {
					f(led, wrong)
				}
			}
		}
	}
}

// start is three servers that were never started.
func start(r modelRules) (m model) {
	if r.gossip {
		for i := range m.servers {
			m.servers[i].phase = -1
		}
	}
	return m
}

// explore visits every state. It returns how many there are, and the way to the first
// step that is wrong.
func explore(r modelRules) (states map[model]model, wrong string, way []model) {
	first := start(r)
	states = map[model]model{first: first}
	queue := []model{first}
	for len(queue) > 0 && wrong == "" {
		m := queue[0]
		queue = queue[1:]
		m.next(r, func(to model, bad string) {
			if bad != "" && wrong == "" {
				wrong = bad
				for at := m; ; at = states[at] {
					way = append(way, at)
					if at == first {
						break
					}
				}
				slices.Reverse(way)
			}
			if _, seen := states[to]; !seen {
				states[to] = m
				queue = append(queue, to)
			}
		})
	}
	return states, wrong, way
}

func TestFoundingModel(t *testing.T) {
	for _, r := range []modelRules{{wipes: 3}, {gossip: true, wipes: 2}} {
		states, wrong, way := explore(r)
		if wrong != "" {
			for _, m := range way {
				t.Log(m)
			}
			t.Fatalf("%+v: %s", r, wrong)
		}
		t.Logf("%+v: %d states", r, len(states))
	}
}

// Each rule is there for a reason: without it, the model finds a state that is lost. Three
// rules keep servers from founding beside one that has state, and each of them is enough.
func TestFoundingModelFindsWhatEachRulePrevents(t *testing.T) {
	for _, r := range []modelRules{
		{ignoreAbsent: true, wipes: 2},
		{anyoneVotes: true, wipes: 2},
		{ignoreState: true, noIDs: true, noDisks: true, wipes: 2},
		{ignoreState: true, noIDs: true, noDisks: true, gossip: true, wipes: 2},
	} {
		if states, wrong, _ := explore(r); wrong == "" {
			t.Errorf("%+v: nothing wrong in %d states", r, len(states))
		}
	}
}

// From every state in which no disk was emptied, the cluster can be founded and serve.
func TestFoundingEnds(t *testing.T) {
	for _, r := range []modelRules{{}, {gossip: true}} {
		before := map[model][]model{}
		seen := map[model]bool{start(r): true}
		queue := []model{start(r)}
		var ends []model
		for len(queue) > 0 {
			m := queue[0]
			queue = queue[1:]
			if m.served[1] {
				ends = append(ends, m)
				continue
			}
			m.next(r, func(to model, _ string) {
				if to.wiped > 0 {
					return
				}
				before[to] = append(before[to], m)
				if !seen[to] {
					seen[to] = true
					queue = append(queue, to)
				}
			})
		}
		states := len(seen)
		for len(ends) > 0 {
			m := ends[0]
			ends = ends[1:]
			if seen[m] {
				delete(seen, m)
				ends = append(ends, before[m]...)
			}
		}
		for m := range seen {
			t.Errorf("%+v: the cluster is never founded from\n%s", r, m)
			break
		}
		t.Logf("%+v: %d states", r, states)
	}
}
