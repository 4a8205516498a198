package cluster

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

// A cluster is founded once. Servers that are given the same list of members and have
// nothing on their disks found it together:
//
//  1. Each asks all others of the list. It goes on only if every one of them is there,
//     has nothing on its disk, has the same list, and does not remember this server's
//     name with another disk.
//  2. The first of the list makes the cluster's id, writes it to its disk, and has all
//     others promise to be of this cluster. A promise is on disk before it is given. It
//     is never taken back, and a server that is of one cluster promises nothing to another.
//  3. With all promises the first of the list writes the membership. The others get it
//     from there, as every other entry.
//
// So a server whose disk was wiped founds nothing as long as one server of the list has
// state, remembers, or cannot be asked. Every step can be repeated after a crash.
//
// A list need not be that of the cluster that a server was in before. So a server listens
// before it takes part in a founding, and takes part in none if a member of a cluster calls
// it that takes it for a member of that one; see former.go.

const (
	foundingPause    = 20 * time.Millisecond
	foundingMaxPause = time.Second

	// listenFirst is how long a server waits for members of a cluster that it was in. They
	// call each half second, and a call that nobody hears lasts up to two seconds.
	listenFirst = 3 * time.Second
)

// foundingQuestion asks a server what it would say to the founding of a cluster.
type foundingQuestion struct {
	ID      string   `json:"id"` // of the server that asks
	Disk    string   `json:"disk"`
	Members []Member `json:"members"`
	// Cluster is the id to promise. Empty: the server only asks.
	Cluster string `json:"cluster,omitempty"`
}

// foundingAnswer is what a server knows that matters to a founding.
type foundingAnswer struct {
	Empty     bool     `json:"empty"`             // it has no entry and no snapshot
	Cluster   string   `json:"cluster,omitempty"` // the cluster that it is of, or promised to be of
	Members   []Member `json:"members"`           // its own list
	OtherDisk bool     `json:"other_disk"`        // it knows the asking server with another disk
	// Listening: it has started a moment ago, and promises nothing yet. It tells no list.
	Listening bool `json:"listening,omitempty"`
}

// founding founds the cluster of the configured members, or waits until another
// server has added this one to one.
type founding struct {
	members func() []Member // who founds, sorted by id; nil while that is not known
	node    *raftNode
	self    *identity
	dialAs  func(ctx context.Context, id, addr string) (net.Conn, error)
	log     *slog.Logger
	// existing is Config.ClusterID: a cluster that exists is not founded again.
	existing string

	wake wait.Signal // a server of the list has come

	listened time.Time                // from then on it takes part
	caller   atomic.Pointer[greeting] // a member of a cluster
	former   func() (cluster, why string)

	mu    sync.Mutex      // one promise at a time
	asked map[string]bool // servers of the list that have asked

	reminder reminder // of run only
}

func newFounding(c *Cluster) *founding {
	return &founding{
		members: c.founders, node: c.node, self: c.self, dialAs: c.peers.dialAs, log: c.log,
		existing: c.cfg.ClusterID, former: c.former.cluster,
		wake: wait.NewSignal(), asked: make(map[string]bool),
		listened: time.Now().Add(c.cfg.listening()),
	}
}

// sortedMembers returns the members in the order of their ids.
func sortedMembers(members []Member) []Member {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return members
}

// called notes that a member of a cluster has called this server while it had nothing. It
// founds no cluster any more: to those who asked it before, its empty state would be that of
// the cluster.
func (f *founding) called(who greeting) { f.caller.CompareAndSwap(nil, &who) }

// run tries until this server has state, founded here or received from elsewhere.
func (f *founding) run(ctx context.Context) {
	if f.node.empty() && wait.Sleep(ctx, time.Until(f.listened)) != nil {
		return
	}
	for pause := foundingPause; f.node.empty(); pause = min(2*pause, foundingMaxPause) {
		if members := f.members(); len(members) > 0 {
			f.remind(f.try(ctx, members))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-f.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// remind says once a minute what the founding waits for, and sooner when it has changed.
func (f *founding) remind(reasons []string) {
	text := strings.Join(reasons, "; ")
	if !f.reminder.due(text) {
		return
	}
	f.log.Warn("waiting to found the cluster", "for", text, "way_out",
		"start the missing members; if a cluster exists already, start this server under a new "+
			"--server-id with --join, and add it (storcon_cli cluster add, or cluster replace for "+
			"a member that lost its disk); else correct --members or --raft-listen")
}

// try founds the cluster if all members agree. It returns what is in the way.
func (f *founding) try(ctx context.Context, members []Member) (reasons []string) {
	if f.existing != "" {
		return []string{"an invitation to cluster " + f.existing}
	}
	if _, why := f.former(); why != "" {
		return append([]string{why}, f.askAll(ctx, members, "")...)
	}
	if who := f.caller.Load(); len(members) == 1 && who != nil {
		return []string{fmt.Sprintf("%s of cluster %s calls this server, which was a member of it "+
			"and has lost its disk", who.ID, who.Cluster)}
	}
	if reasons = f.askAll(ctx, members, ""); len(reasons) > 0 {
		return reasons
	}
	if members[0].ID != f.self.id {
		return nil // the first one founds, and is about to
	}
	id, err := f.self.foundingID()
	if err != nil {
		return []string{err.Error()}
	}
	if reasons = f.askAll(ctx, members, id); len(reasons) > 0 {
		return reasons
	}
	err = f.node.await(f.node.raft().BootstrapCluster(configuration(members)))
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return []string{"this server's disk: " + err.Error()}
	}
	f.log.Info("founded the cluster", "cluster", id, "members", len(members))
	f.node.campaign(f.node.timeouts.Election)
	return nil
}

// askAll asks all other members at once. With the id of a cluster they promise to be of
// it.
func (f *founding) askAll(ctx context.Context, members []Member, cluster string) []string {
	reasons := make([]string, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		if m.ID == f.self.id {
			continue
		}
		wg.Go(func() {
			answer, err := f.ask(ctx, m, foundingQuestion{
				ID: f.self.id, Disk: f.self.disk, Members: members, Cluster: cluster,
			})
			if err != nil {
				reasons[i] = fmt.Sprintf("%s at %s cannot be asked: %v", m.ID, m.RaftAddr, err)
			} else if why := answer.objection(members, f.self.cluster()); why != "" {
				reasons[i] = m.ID + " " + why
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(reasons, func(s string) bool { return s == "" })
}

// objection says why a server that answers so keeps others from founding, or "".
func (a foundingAnswer) objection(members []Member, cluster string) string {
	switch {
	case a.Listening:
		return "listens whether it was a member of a cluster"
	case !a.Empty:
		return "has state of cluster " + a.Cluster
	case a.OtherDisk:
		return "remembers this server with another disk (if no cluster was ever founded, empty " +
			"its data directory too)"
	case foreign(a.Cluster, cluster), a.Cluster != "" && cluster == "":
		return "is of cluster " + a.Cluster
	case !slices.Equal(a.Members, members):
		return fmt.Sprintf("has another list of members, %v", ids(a.Members))
	}
	return ""
}

func ids(members []Member) []string {
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = m.ID + "=" + m.RaftAddr
	}
	return out
}

// answer says what this server knows. It promises what it is asked for only if it has
// no objection itself.
func (f *founding) answer(q foundingQuestion) (foundingAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node.empty() && !f.asked[q.ID] && len(f.asked) < maxServers {
		f.asked[q.ID] = true
		f.wake.Set()
	}
	k := founder{
		empty: f.node.empty(), cluster: f.self.cluster(), members: f.members(),
		disk: f.self.disks.Disk(q.ID), listening: time.Now().Before(f.listened),
	}
	k.former, _ = f.former()
	a, promise := k.answer(q)
	if promise {
		if err := f.self.setCluster(q.Cluster); err != nil {
			return a, err
		}
		a.Cluster = q.Cluster
	}
	return a, nil
}

// founder is what a server knows when it is asked about a founding.
type founder struct {
	empty   bool
	cluster string
	members []Member
	disk    string // of the server that asks, as it is known here; "" if it is not
	former  string // the cluster that it was a member of before it lost its disk, or ""

	listening bool // it may hear of that yet
}

// answer says so, and whether the server may promise what it is asked for. Then the
// promise must be on its disk before the answer is given.
func (k founder) answer(q foundingQuestion) (a foundingAnswer, promise bool) {
	a = foundingAnswer{
		Empty: k.empty, Cluster: cmp.Or(k.cluster, k.former), Members: k.members,
		OtherDisk: k.disk != "" && k.disk != q.Disk, Listening: k.empty && k.listening,
	}
	if a.Listening {
		a.Members = nil
	}
	return a, q.Cluster != "" && a.objection(q.Members, q.Cluster) == ""
}

// ask asks one server, over a connection of its own.
func (f *founding) ask(
	ctx context.Context, m Member, q foundingQuestion,
) (a foundingAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	conn, err := f.dialAs(ctx, m.ID, m.RaftAddr)
	if err != nil {
		return a, err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	return exchange[foundingAnswer](conn, callFound, q)
}

// invitation tells a server that it is to become a member of a cluster.
type invitation struct {
	ID      string `json:"id"` // of the server that is invited
	Cluster string `json:"cluster"`
}

// accept makes this server one of the cluster that invites it. Only a server with
// nothing on its disk follows an invitation: what it has would be lost, or would be
// taken for the cluster's.
func (f *founding) accept(v invitation) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := founder{empty: f.node.empty(), cluster: f.self.cluster()}
	if err := k.accepts(f.self.id, v); err != nil {
		return err
	}
	return f.self.setCluster(v.Cluster)
}

// accepts returns an error if a server with this id does not follow an invitation.
func (k founder) accepts(id string, v invitation) error {
	switch {
	case v.ID != id || v.Cluster == "":
		return fmt.Errorf("%w: %s", ErrOtherServer, id)
	case k.cluster == v.Cluster:
		return nil
	case !k.empty:
		return fmt.Errorf("%w: %s has state of cluster %q; start it on an empty data directory",
			ErrNotEmpty, id, k.cluster)
	case k.cluster != "":
		return fmt.Errorf("%w: %s is of cluster %q", ErrClusterMismatch, id, k.cluster)
	}
	return nil
}

// invite makes a server that is to be added one of this cluster. It fails within
// seconds if the server is not there, is another one, or is not empty.
func (f *founding) invite(ctx context.Context, m Member) error {
	ctx, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	conn, err := f.dialAs(ctx, m.ID, m.RaftAddr)
	if err != nil {
		return unreachable(err)
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	_, err = exchange[struct{}](conn, callInvite,
		invitation{ID: m.ID, Cluster: f.self.cluster()})
	return err
}

// find returns nil if a member answers at an address.
func (f *founding) find(ctx context.Context, m Member) error {
	ctx, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	conn, err := f.dialAs(ctx, m.ID, m.RaftAddr)
	if err != nil {
		return unreachable(err)
	}
	return conn.Close()
}

// unreachable gives an error of a dial its class, unless it has one.
func unreachable(err error) error {
	for _, class := range []error{ErrOtherServer, ErrClusterMismatch, ErrRefused, ErrClosed} {
		if errors.Is(err, class) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrPeerUnreachable, err)
}

// exchange makes one call over a connection that carries nothing else.
func exchange[A any](conn net.Conn, kind byte, q any) (a A, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	if _, err := conn.Write(appendPeerFrame(nil,
		peerFrame{kind: kind, id: 1, body: body})); err != nil {
		return a, err
	}
	f, err := readPeerFrame(bufio.NewReader(conn))
	if err != nil {
		return a, err
	}
	if f.kind != answerOK {
		return a, refusalError(f.body)
	}
	return a, json.Unmarshal(f.body, &a)
}
