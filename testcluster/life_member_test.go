package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
)

// What operators do with the members of a life.

// argument is the value of an argument of a process, "" if it has none.
func argument(args []string, name string) string {
	if i := slices.Index(args, name); i >= 0 {
		return args[i+1]
	}
	return ""
}

// withArgument sets an argument of a process; an empty value removes it.
func withArgument(args []string, name, value string) []string {
	if i := slices.Index(args, name); i >= 0 {
		args = slices.Delete(args, i, i+2)
	}
	if value == "" {
		return args
	}
	return append(args, name, value)
}

// set changes an argument of a controller from its next start on.
func (l *life) set(i int, name, value string) {
	l.Helper()
	l.must(name, l.Reflag(i, func(args []string) []string {
		return withArgument(args, name, value)
	}))
}

// argument is the value of an argument of a controller.
func (l *life) argument(i int, name string) (value string) {
	l.must(name, l.Reflag(i, func(args []string) []string {
		value = argument(args, name)
		return args
	}))
	return value
}

func (l *life) empty(i int) {
	l.Helper()
	l.must("empty", os.RemoveAll(l.DataDir(i)))
}

// free is a place at which no member is.
func (l *life) free() int {
	l.Helper()
	taken := make(map[int]bool)
	for _, i := range l.members {
		taken[i] = true
	}
	for _, i := range l.rng.Perm(l.Controllers()) {
		if !taken[i] && !l.Running(i) {
			return i
		}
	}
	l.Fatal("no place is free")
	return -1
}

// joinWhom are the raft addresses of some members that have a state, but not of the one
// that asks.
func (l *life) joinWhom(asks string) string {
	var addrs []string
	ids := slices.DeleteFunc(l.ids(), func(id string) bool { return id == asks || id == l.lost })
	l.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids[:1+l.rng.IntN(len(ids))] {
		addrs = append(addrs, l.argument(l.members[id], "--raft-advertise"))
	}
	return strings.Join(addrs, ",")
}

// newcomer starts a process on an empty disk that waits to be added, now and then under the
// id of a member that was removed. The raft address is known without asking.
func (l *life) newcomer() (neon.MemberAdd, int) {
	l.Helper()
	i := l.free()
	id := fmt.Sprintf("c%d", l.next)
	if n := len(l.gone); n > 0 && l.rng.IntN(4) == 0 {
		at := l.rng.IntN(n)
		id = l.gone[at]
		l.gone = slices.Delete(l.gone, at, at+1)
	} else {
		l.next++
	}
	l.empty(i)
	l.set(i, "--members", "")
	l.set(i, "--server-id", id)
	l.set(i, "--join", l.joinWhom(id))
	l.set(i, "--cluster-id", "")
	l.must("start "+id, l.Restart(l.ctx, i))
	l.tell("  %s waits at %d", id, i)
	m := neon.MemberAdd{ID: id, RaftAddr: l.argument(i, "--raft-advertise")}
	if l.rng.IntN(2) == 0 {
		l.await("the leader hears of "+id, 20*time.Second, func() error {
			view, err := l.of(l.leader()).Cluster().CurrentMembers(l.ctx)
			if !slices.ContainsFunc(view.Waiting, func(w neon.ClusterApplicant) bool {
				return w.ID == id && w.RaftAddr == m.RaftAddr // an id may come again
			}) {
				err = errors.Join(err, fmt.Errorf("%+v wait", view.Waiting))
			}
			return err
		})
		m.RaftAddr = ""
	}
	return m, i
}

// end ends a process that is no member any more.
func (l *life) end(id string, i int) {
	l.Helper()
	l.gone = append(l.gone, id)
	if l.Running(i) {
		l.must("end "+id, l.Kill(i))
	}
}

func (l *life) add() {
	m, i := l.newcomer()
	m.Standby = l.rng.IntN(4) == 0
	_, err := l.via().Cluster().AddMember(l.ctx, m)
	l.must("add "+m.ID, err)
	if m.Standby {
		l.tell("  %s is a standby", m.ID)
		m.Standby = false
		_, err := l.via().Cluster().AddMember(l.ctx, m)
		l.must("give a vote to "+m.ID, err)
	}
	l.members[m.ID] = i
}

func (l *life) remove() {
	id := l.pick()
	if l.rng.IntN(3) == 0 {
		id = l.leader()
	}
	l.removeThis(id)
}

// removeThis removes a member. Its process has to notice.
func (l *life) removeThis(id string) {
	l.Helper()
	i, from := l.members[id], l.mark(l.members[id])
	l.tell("  %s goes", id)
	l.must("remove "+id, l.via().Cluster().RemoveMember(l.ctx, id))
	delete(l.members, id)
	if l.rng.IntN(2) == 0 {
		l.says(i, from, "was removed from the cluster", "stop it",
			"start it with an empty data directory and another --server-id")
		l.unready(i)
		if l.rng.IntN(2) == 0 {
			l.tell("  and comes back")
			l.must("kill", l.Kill(i))
			from = l.mark(i)
			l.must("start", l.Restart(l.ctx, i))
			l.says(i, from, "was removed from the cluster", "stop it")
			l.unready(i)
		}
	}
	l.end(id, i)
}

// unready demands that a process that is no member says so to those who ask.
func (l *life) unready(i int) {
	l.Helper()
	l.await("not ready", 5*time.Second, func() error {
		err := l.ClientOf(i).WithTryTimeout(3 * time.Second).Cluster().Ready(l.ctx)
		if client.StatusOf(err) != http.StatusServiceUnavailable {
			return fmt.Errorf("asked whether it is ready, it says: %v", err)
		}
		return nil
	})
}

// removeBesideSilent would leave no majority: of two voters one does not answer.
func (l *life) removeBesideSilent() {
	leader := l.leader()
	silent := l.pick(leader)
	healthy := l.pick(leader, silent)
	l.tell("  freeze %s, and remove %s", silent, healthy)
	l.must("freeze", l.Pause(l.members[silent]))
	// It counts as connected until it has missed three reports.
	l.await("the silence is noticed", time.Minute, func() error {
		view, err := l.of(leader).Cluster().Members(l.ctx)
		for _, m := range view.Members {
			if m.ID == silent && m.Connected {
				return fmt.Errorf("%s is connected", silent)
			}
		}
		return err
	})
	l.refused("a healthy one", l.of(leader).Cluster().RemoveMember(l.ctx, healthy),
		http.StatusPreconditionFailed, silent+" would not answer")
	l.must("thaw", l.Resume(l.members[silent]))
}

func (l *life) replace() {
	old := l.pick()
	l.replaceThis(old)
}

// replaceThis replaces a member, dead or alive.
func (l *life) replaceThis(old string) {
	l.Helper()
	m, i := l.newcomer()
	l.tell("  %s takes the place of %s", m.ID, old)
	_, err := l.via().Cluster().ReplaceMember(l.ctx, old, m)
	l.must("replace "+old+" by "+m.ID, err)
	l.replaced(old, m.ID, i)
}

func (l *life) replaced(old, id string, i int) {
	l.Helper()
	was := l.members[old]
	delete(l.members, old)
	l.members[id] = i
	if old == l.lost {
		l.lost = ""
	}
	l.end(old, was)
}

func (l *life) killedWhileAdded()    { l.killedWhile("") }
func (l *life) killedWhileReplaced() { l.killedWhile(l.pick()) }

// killedWhile kills a member while one is added, or replaced if old is not empty, and has
// the command repeated as its refusal says.
func (l *life) killedWhile(old string) {
	m, i := l.newcomer()
	command := func(c *testcluster.Client, m neon.MemberAdd) (err error) {
		if old == "" {
			_, err = c.Cluster().AddMember(l.ctx, m)
		} else {
			_, err = c.Cluster().ReplaceMember(l.ctx, old, m)
		}
		return err
	}
	victim, at := m.ID, i
	switch l.rng.IntN(3) {
	case 0:
		victim = l.leader()
		at = l.members[victim]
	case 1:
		victim = l.pick()
		at = l.members[victim]
	}
	first, done := l.via(), make(chan error, 1)
	if l.rng.IntN(2) == 0 { // one that does not ask another one when this one does not know
		first = l.ClientOf(l.members[l.pick()]).WithTryTimeout(20 * time.Second)
	}
	go func() { done <- command(first, m) }()
	l.pause([]time.Duration{5, 40, 150}[l.rng.IntN(3)] * time.Millisecond)
	l.tell("  kill %s while %s comes, in the place of %q", victim, m.ID, old)
	l.must("kill", l.Kill(at))
	l.pause(3 * time.Second)
	l.must("restart", l.Restart(l.ctx, at))
	err := <-done
	m.RaftAddr = l.argument(i, "--raft-advertise") // a new leader may not have heard of it
	for err != nil {
		l.tell("  refused: %v", err)
		switch text := err.Error(); {
		case client.StatusOf(err) == 0: // the one that was asked is dead
		case strings.Contains(text, "empty data directory"):
			l.must("end", l.Kill(i))
			m, i = l.newcomer()
		case strings.Contains(text, "would not answer; start them"),
			strings.Contains(text, "outcome"), strings.Contains(text, "was taken back"),
			strings.Contains(text, "cannot join"), strings.Contains(text, "retry"):
		default:
			l.Fatalf("no way out: %v", err)
		}
		l.pause(time.Second)
		m.RaftAddr = l.argument(i, "--raft-advertise")
		err = command(l.via(), m)
	}
	if old == "" {
		l.members[m.ID] = i
	} else {
		l.replaced(old, m.ID, i)
	}
}

// growAndShrink goes through all sizes.
func (l *life) growAndShrink() {
	for _, size := range []int{1, 3, 5, 3, 1} {
		for len(l.members) < size {
			l.add()
		}
		for len(l.members) > size {
			l.remove()
		}
		l.leader()
	}
}

// wrongCommands are refused, and change nothing.
func (l *life) wrongCommands() {
	add := func(m neon.MemberAdd) error {
		_, err := l.via().Cluster().AddMember(l.ctx, m)
		return err
	}
	absent := fmt.Sprintf("c%d", l.next)
	at := l.argument(l.members[l.pick()], "--raft-advertise")
	l.refused("nobody is there", add(neon.MemberAdd{ID: absent, RaftAddr: "127.0.0.1:1"}),
		http.StatusPreconditionFailed, "--server-id "+absent, "--join ")
	l.refused("a member is there", add(neon.MemberAdd{ID: absent, RaftAddr: at}),
		http.StatusPreconditionFailed, "cannot join", "another server answers")
	l.refused("unknown", l.via().Cluster().RemoveMember(l.ctx, "c0"), http.StatusNotFound,
		"the members are "+"c")
	id := l.pick()
	_, err := l.via().Cluster().ReplaceMember(l.ctx, id, neon.MemberAdd{ID: id})
	l.refused("by itself", err, http.StatusPreconditionFailed, "another id")
	if len(l.members) == 1 {
		l.refused("the last", l.via().Cluster().RemoveMember(l.ctx, id),
			http.StatusPreconditionFailed, "Add another member first")
	}
}

// refused demands a refusal with words that lead on.
func (l *life) refused(what string, err error, status int, words ...string) {
	l.Helper()
	if err == nil {
		l.Fatalf("%s: not refused", what)
	}
	l.tell("  refused: %v", err)
	if got := client.StatusOf(err); got != status {
		l.Fatalf("%s: status %d: %v", what, got, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			l.Fatalf("%s: the refusal does not say %q: %v", what, w, err)
		}
	}
}

// restart starts a member again.
func (l *life) restart(ctx context.Context, id string) {
	l.Helper()
	l.must("start "+id, l.Restart(ctx, l.members[id]))
}
