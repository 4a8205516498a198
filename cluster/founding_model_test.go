package cluster

import (
	"cmp"
	"fmt"
	"math/bits"
	"strings"
)

// This file explores founding exhaustively: three servers, each of which may go away, come
// back, come back with an empty disk, or with other flags, at every moment, and every order of
// questions, invitations and calls. What a server answers, what it makes of an answer, under
// which id it founds, and whether it takes itself for a member of another cluster, is the
// code of founding.go, identity.go and former.go. The rest is modelled: what survives on a
// disk, and which servers may make up a majority.
//
// It shows that no state is served while a disk holds an acknowledged one of a cluster in
// whose place it would be, or a newer one of the same, and that founding ends when nothing
// interferes. One thing cannot be helped: a server that comes back with an empty disk and other
// servers to found with, or none, while nobody is there who knows it, founds a cluster. One
// that has founded alone must not serve that any more when somebody is there.
//
// A call of a member that is there is heard before a server takes part in a founding, and
// before it serves: they call more often than a server listens for.

// modelSet is a set of servers, a bit for each.
type modelSet uint8

const modelAll modelSet = 0b111

func (s modelSet) has(i int) bool { return s>>i&1 == 1 }
func (s modelSet) len() int       { return bits.OnesCount8(uint8(s)) }
func (s modelSet) first() int     { return bits.TrailingZeros8(uint8(s)) }

func only(i int) modelSet { return 1 << i }

// What a server has heard from members of other clusters, in its directory.
const (
	heardNothing   int8 = iota
	heardWithNone       // while it was of no cluster
	heardInCluster      // in the cluster of which it is
)

// What a server knows of the disk of another one.
const (
	diskUnknown int8 = iota
	diskSame         // it is the one that the other one has
	diskOther
)

// modelServer is a server and its disk. What follows flags is lost when it goes away.
type modelServer struct {
	// The log: how many entries it has, who is in its newest membership, and whether there
	// is a write that was acknowledged.
	entries int8
	members modelSet
	written bool

	cluster int8 // the cluster on the disk; 0: none
	made    bool // the server has made its id
	invited bool // an operator has chosen it
	known   [3]int8
	heard   int8
	lost    bool // it was emptied

	started bool     // ever
	present bool     // now
	flags   modelSet // the list of members that it was started with; empty: it is to join

	phase  int8     // 0: asks, 1: asks for promises, -1: no list yet
	agreed modelSet // who agreed in this phase
	called bool     // by a member of a cluster
}

// model is the whole world. It is comparable, so that it is its own key.
type model struct {
	servers [3]modelServer
	blind   uint8 // clusters that were founded while nobody was there who knew better
	wiped   int8  // disks that were emptied
	changed int8  // starts with other flags than before
}

// modelRules are the rules that the model follows. A mutant of the model breaks one.
type modelRules struct {
	gossip  bool // the list is what was seen, as with Config.Expect
	wipes   int8 // how many disks may be emptied
	changes int8 // how many starts may have other flags than the one before
	// flags are those that a server may be started with. Empty: the list of all.
	flags [3][]modelSet
	adds  bool // servers are invited and added

	ignoreAbsent bool // mutant: a server that cannot be asked agrees
	ignoreState  bool // mutant: a server with state or a promise agrees
	anyoneVotes  bool // mutant: a server without a cluster answers raft
	noDisks      bool // mutant: no server remembers whose disk was whose
	noIDs        bool // mutant: members of two clusters talk
	anyID        bool // mutant: a server founds under an id that it was given
	foundsDeaf   bool // mutant: a server founds before it has listened
	servesDeaf   bool // mutant: one that has founded alone does not listen afterwards
}

func (m model) String() string {
	var b strings.Builder
	for i, s := range m.servers {
		fmt.Fprintf(&b, "c%d %+v\n", i+1, s)
	}
	return fmt.Sprintf("%sblind=%b wiped=%d changed=%d", b.String(), m.blind, m.wiped, m.changed)
}

// What the code of this package is asked about, made once.
var (
	modelIDs      = [...]string{"", "cluster 1", "cluster 2", "cluster 3", "cluster 4"}
	modelDisks    = [...]string{diskUnknown: "", diskSame: "disk", diskOther: "other disk"}
	modelServers  = [3]string{"c1", "c2", "c3"}
	modelListings = func() (lists [modelAll + 1][]Member) {
		for set := range lists {
			for i, id := range modelServers {
				if modelSet(set).has(i) {
					lists[set] = append(lists[set], Member{ID: id, RaftAddr: id + ":1"})
				}
			}
		}
		return lists
	}()
)

// listing is the list of a server; nil while it does not know it.
func (s *modelServer) listing() []Member {
	if s.phase < 0 {
		return nil
	}
	return modelListings[s.flags]
}

// connect is the greeting between two servers: each looks at the other's disk and
// cluster. It reports whether they talk.
func (m *model) connect(r modelRules, i, j int) bool {
	for _, pair := range [2][2]int{{i, j}, {j, i}} {
		me, other := &m.servers[pair[0]], &m.servers[pair[1]]
		if !r.noIDs && foreign(modelIDs[me.cluster], modelIDs[other.cluster]) {
			return false
		}
		member := me.members.has(pair[1])
		if me.entries == 0 && !r.gossip {
			member = me.flags.has(pair[1]) // as a founder
		}
		known := &me.known[pair[1]]
		switch {
		case r.noDisks, *known == diskUnknown && !member:
		case *known == diskOther && member:
			return false
		default:
			*known = diskSame
		}
	}
	return true
}

// call has server i dial server j, which is where its membership has it.
func (m *model) call(i, j int) (wrong string) {
	me, other := &m.servers[i], &m.servers[j]
	if !me.present || !other.present || !me.members.has(j) || me.cluster == other.cluster {
		return ""
	}
	other.called = true
	known := loner{
		empty: other.entries == 0, founds: other.flags != 0, made: other.made,
		cluster: modelIDs[other.cluster], members: other.members.len(), at: foundingIndex,
	}
	if known.members > 1 {
		known.at++
	}
	if other.silent() || !known.concerned() {
		return ""
	}
	if other.heard = heardWithNone; other.cluster != 0 {
		other.heard = heardInCluster
	}
	if !other.lost && other.entries > 0 {
		return fmt.Sprintf("c%d is told that it has lost its disk", j+1)
	}
	return ""
}

// calls has all members of clusters dial server i.
func (m *model) calls(i int) (wrong string) {
	for k := range m.servers {
		if bad := m.call(k, i); bad != "" {
			wrong = bad
		}
	}
	return wrong
}

// silent reports whether a server knows that it was a member of another cluster.
func (s *modelServer) silent() bool {
	switch s.heard {
	case heardInCluster:
		return elsewhere(modelIDs[s.cluster], modelIDs[s.cluster], false)
	case heardWithNone:
		return elsewhere("", modelIDs[s.cluster], s.flags != 0)
	}
	return false
}

// foundingID has server i choose the id under which it founds.
func (m *model) foundingID(r modelRules, i int) bool {
	me := &m.servers[i]
	if r.anyID && me.cluster != 0 {
		return true
	}
	if me.cluster != 0 {
		return mayFound(modelIDs[me.cluster], me.made) == nil
	}
	var taken uint8
	for _, s := range m.servers {
		taken |= 1 << s.cluster
	}
	for me.cluster = 1; taken>>me.cluster&1 == 1; {
		me.cluster++
	}
	me.made = true
	m.blind &^= 1 << me.cluster
	return true
}

// foundAlone has server i, which is configured alone, found its cluster, or die after it has
// chosen its id.
func (m *model) foundAlone(r modelRules, i int, dies bool) (can bool, wrong string) {
	me := &m.servers[i]
	if !r.foundsDeaf {
		wrong = m.calls(i)
		for k := range m.servers { // it listens for longer than a question may last
			m.servers[k].agreed = 0
			m.servers[k].phase = min(m.servers[k].phase, 0)
		}
	}
	if me.called || me.silent() || !m.foundingID(r, i) {
		return false, wrong
	}
	m.looksAround(i)
	if dies {
		m.leave(r, i)
		return true, wrong
	}
	me.entries, me.members = 1, only(i)
	return true, wrong
}

// looksAround notes whether a cluster that server i founds is one that a member of another
// one, which is not there and that nobody asks, would have kept from being founded.
func (m *model) looksAround(i int) {
	me := &m.servers[i]
	for k, s := range m.servers {
		if !s.present && !me.flags.has(k) && s.entries > 0 && s.cluster != me.cluster &&
			s.members&me.flags != 0 {
			m.blind |= 1 << me.cluster
		}
	}
}

// leave has a server go away.
func (m *model) leave(r modelRules, i int) {
	me := &m.servers[i]
	me.present, me.phase, me.agreed, me.called = false, 0, 0, false
	if r.gossip {
		me.phase = -1
	}
}

// ask has server i ask server j, as askAll and try do.
func (m *model) ask(r modelRules, i, j int) (wrong string) {
	me := &m.servers[i]
	if !r.foundsDeaf {
		wrong = cmp.Or(m.calls(i), m.calls(j))
	}
	if !m.agrees(r, i, j) || me.silent() {
		me.phase, me.agreed = 0, 0
		return wrong
	}
	if me.agreed |= only(j); me.agreed|only(i) != me.flags {
		return wrong
	}
	me.agreed = 0
	switch {
	case i != me.flags.first():
		me.phase = 0 // the first of the list goes on
	case me.phase == 0:
		if m.foundingID(r, i) {
			me.phase = 1
		}
	default:
		m.looksAround(i)
		me.phase, me.entries, me.members = 0, 1, me.flags
	}
	return wrong
}

func (m *model) agrees(r modelRules, i, j int) bool {
	me, other := &m.servers[i], &m.servers[j]
	if !other.present || other.phase < 0 || !m.connect(r, i, j) {
		return r.ignoreAbsent && !other.present
	}
	q := foundingQuestion{
		ID: modelServers[i], Disk: modelDisks[diskSame], Members: me.listing(),
	}
	if me.phase == 1 {
		q.Cluster = modelIDs[me.cluster]
	}
	k := founder{
		empty: other.entries == 0, cluster: modelIDs[other.cluster], members: other.listing(),
		disk: modelDisks[other.known[i]],
	}
	if other.silent() {
		k.former = "a former cluster"
	}
	if r.ignoreState {
		k.empty, k.cluster = true, ""
	}
	a, promise := k.answer(q)
	if promise {
		other.join(me.cluster)
		a.Cluster = q.Cluster
	}
	return a.objection(me.listing(), modelIDs[me.cluster]) == ""
}

// join has a server be of a cluster.
func (s *modelServer) join(cluster int8) {
	if s.cluster != cluster {
		s.cluster, s.made = cluster, false
	}
}

// leads reports whether server i can lead with the vote of j, or with its own alone.
func (m *model) leads(r modelRules, i, j int) (can bool, wrong string) {
	me, other := &m.servers[i], &m.servers[j]
	if !me.present || me.entries == 0 {
		return false, ""
	}
	if i == j {
		can = me.members == only(i)
	} else {
		same := me.cluster == other.cluster || r.anyoneVotes && other.cluster == 0
		can = me.members.has(j) && other.present && other.entries <= me.entries && same &&
			m.connect(r, i, j)
	}
	if !can {
		return false, ""
	}
	if !r.servesDeaf {
		wrong = m.calls(i)
	}
	return !me.silent(), wrong
}

// serve has server i lead with the vote of j, which gets its log, and acknowledge a write if
// that is wanted.
func (m *model) serve(r modelRules, i, j int, write bool) (can bool, wrong string) {
	if can, wrong = m.leads(r, i, j); !can {
		return can, wrong
	}
	me := &m.servers[i]
	if bad := m.supersedes(i); bad != "" {
		wrong = bad
	}
	if write && !me.written {
		me.written = true
		me.entries++
	}
	m.replicate(i, j)
	return true, wrong
}

// replicate gives server j the log of server i.
func (m *model) replicate(i, j int) {
	me, other := m.servers[i], &m.servers[j]
	other.entries, other.members, other.written = me.entries, me.members, me.written
	other.join(me.cluster)
	other.agreed, other.phase = 0, min(other.phase, 0)
}

// supersedes says whose state server i serves another one in the place of, "" if nobody's.
func (m *model) supersedes(i int) string {
	me := &m.servers[i]
	for k := range m.servers {
		s := &m.servers[k]
		switch {
		case k == i || !s.written:
		case s.cluster == me.cluster && !me.written:
			return fmt.Sprintf("c%d serves an empty state, and c%d has acknowledged state", i+1, k+1)
		case s.cluster == me.cluster, !s.members.has(i) && !me.members.has(k), m.isBlind(s.cluster),
			me.invited:
		case m.isBlind(me.cluster) && (me.members != only(i) || !s.present || !s.members.has(i)):
		default:
			return fmt.Sprintf("c%d serves cluster %d, and c%d has acknowledged state of cluster %d",
				i+1, me.cluster, k+1, s.cluster)
		}
	}
	return ""
}

func (m *model) isBlind(cluster int8) bool { return m.blind>>cluster&1 == 1 }

// invite has server i, which leads with the vote of j, invite server k.
func (m *model) invite(r modelRules, i, j, k int) (can bool, wrong string) {
	if can, wrong = m.leads(r, i, j); !can || !m.servers[k].present || !m.connect(r, i, k) {
		return false, wrong
	}
	me, other := &m.servers[i], &m.servers[k]
	err := founder{empty: other.entries == 0, cluster: modelIDs[other.cluster]}.accepts(
		modelServers[k], invitation{ID: modelServers[k], Cluster: modelIDs[me.cluster]})
	if err != nil {
		return false, wrong
	}
	if other.cluster == 0 {
		other.join(me.cluster)
		other.invited = true
	}
	return true, wrong
}

// add has server i, which leads with the vote of j, make server k a voter.
func (m *model) add(r modelRules, i, j, k int) (can bool, wrong string) {
	if can, wrong = m.invite(r, i, j, k); !can || m.servers[k].entries > 0 {
		return false, wrong
	}
	me := &m.servers[i]
	me.members |= only(k)
	me.entries++
	m.replicate(i, j)
	m.replicate(i, k)
	if !m.connect(r, i, k) {
		wrong = "a server that was added is refused"
	}
	return true, wrong
}
