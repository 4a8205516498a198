package testcluster_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"quorate/api/neon"
)

// What befalls the processes and disks of a life.

// logFile is where a controller's log is, all of it.
func (l *life) logFile(i int) string {
	return filepath.Join(filepath.Dir(l.DataDir(i)), "storage_controller.log")
}

// mark is the end of a controller's log.
func (l *life) mark(i int) int64 {
	l.Helper()
	info, err := os.Stat(l.logFile(i))
	l.must("log", err)
	return info.Size()
}

// since is what a controller has logged after a mark.
func (l *life) since(i int, mark int64) string {
	l.Helper()
	f, err := os.Open(l.logFile(i))
	l.must("log", err)
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, mark, 1<<30))
	l.must("log", err)
	return string(text)
}

// says waits until a controller's log says all of that after a mark.
func (l *life) says(i int, mark int64, words ...string) {
	l.Helper()
	l.await("the log says so", 20*time.Second, func() error {
		text := l.since(i, mark)
		for _, w := range words {
			if !strings.Contains(text, w) {
				return fmt.Errorf("it does not say %q", w)
			}
		}
		return nil
	})
}

// ends starts a controller that has to end by itself, and to say why.
func (l *life) ends(i int, words ...string) {
	l.Helper()
	from := l.mark(i)
	ctx, cancel := context.WithTimeout(l.ctx, 15*time.Second)
	defer cancel()
	_ = l.Restart(ctx, i) // it may answer for a moment
	l.await("it ends", 15*time.Second, func() error {
		if l.Running(i) {
			return fmt.Errorf("it runs, and says:\n%s", l.since(i, from))
		}
		return nil
	})
	text := l.since(i, from)
	l.tell("  ended: %s", lastLine(text))
	for _, w := range words {
		if !strings.Contains(text, w) {
			l.Fatalf("it does not say %q:\n%s", w, text)
		}
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func (l *life) killLeader() { l.killThis(l.leader()) }
func (l *life) killOne()    { l.killThis(l.pick()) }

func (l *life) killThis(id string) {
	l.tell("  kill %s", id)
	l.must("kill", l.Kill(l.members[id]))
	l.pause(3 * time.Second)
	l.restart(l.ctx, id)
}

func (l *life) killAll() {
	for _, id := range l.ids() {
		l.must("kill", l.Kill(l.members[id]))
	}
	l.pause(time.Second)
	for _, id := range l.ids() {
		l.restart(l.ctx, id)
	}
}

func (l *life) freeze() {
	id := l.pick()
	if l.rng.IntN(2) == 0 {
		id = l.leader()
	}
	l.tell("  freeze %s", id)
	l.must("freeze", l.Pause(l.members[id]))
	l.pause(4 * time.Second)
	l.must("thaw", l.Resume(l.members[id]))
}

// lag keeps a member away while the others write, and often remove what it lacks from their
// logs, so that it has to install a snapshot.
func (l *life) lag() {
	leader := l.leader()
	id := l.pick(leader)
	l.tell("  %s lags", id)
	l.must("kill", l.Kill(l.members[id]))
	begun := l.commitIndex()
	l.await("the others go on", 60*time.Second, func() error {
		if now := l.commitIndex(); now < begun+200 {
			return fmt.Errorf("from %d to %d", begun, now)
		}
		return nil
	})
	l.restart(l.ctx, id)
	if l.rng.IntN(2) == 0 {
		l.pause(500 * time.Millisecond)
		l.tell("  and is killed")
		l.must("kill", l.Kill(l.members[id]))
		l.restart(l.ctx, id)
	}
}

func (l *life) commitIndex() uint64 {
	l.Helper()
	view, err := l.of(l.leader()).Cluster().Members(l.ctx)
	l.must("members", err)
	return view.CommitIndex
}

// upgrade gives all members the other program, one after another, the leader last.
func (l *life) upgrade() {
	l.program, l.other = l.other, l.program
	leader := l.leader()
	for _, id := range append(slices.DeleteFunc(l.ids(),
		func(id string) bool { return id == leader }), leader) {
		i := l.members[id]
		l.must("stop", l.StopController(l.ctx, i))
		l.must("install", l.Install(i, l.program))
		l.restart(l.ctx, id)
		l.await("it is ready", 30*time.Second,
			func() error { return l.of(id).Cluster().Ready(l.ctx) })
	}
}

// otherFlags restarts a member with other settings.
func (l *life) otherFlags() {
	id := l.pick()
	i := l.members[id]
	settings := [][]string{
		{"--raft-heartbeat", "250ms"}, {"--raft-heartbeat", "700ms"}, {"--raft-heartbeat", ""},
		{"--raft-snapshot-threshold", "30", "--raft-trailing-logs", "5"},
		{"--raft-snapshot-threshold", "", "--raft-trailing-logs", ""},
		{"--raft-election", "900ms"}, {"--raft-election", ""},
	}
	set := settings[l.rng.IntN(len(settings))]
	l.tell("  %s with %v", id, set)
	for n := 0; n < len(set); n += 2 {
		l.set(i, set[n], set[n+1])
	}
	l.must("stop", l.StopController(l.ctx, i))
	l.restart(l.ctx, id)
}

// contradiction restarts a member with flags that its disk contradicts. It says so, and
// goes on or ends; then it gets its own flags back.
func (l *life) contradiction() {
	id := l.pick()
	i := l.members[id]
	own := l.argument(i, "--raft-advertise")
	var kept []string
	l.must("flags", l.Reflag(i, func(args []string) []string {
		kept = slices.Clone(args)
		return args
	}))
	l.must("stop", l.StopController(l.ctx, i))
	switch which := l.rng.IntN(4); which {
	case 0:
		l.tell("  %s is told of another cluster", id)
		l.set(i, "--cluster-id", "another")
		l.ends(i, "another", "--cluster-id", "--data-dir")
	case 1:
		l.tell("  %s is told another id", id)
		l.set(i, "--join", "")
		l.set(i, "--members", "c0="+own)
		l.set(i, "--server-id", "c0")
		l.ends(i, "c0", id, "--server-id", "--data-dir")
	case 2:
		l.tell("  %s has another list of members", id)
		l.set(i, "--join", "")
		l.set(i, "--members", id+"="+own+",c0=127.0.0.1:1,c00=127.0.0.1:2")
		from := l.mark(i)
		l.restart(l.ctx, id)
		l.says(i, from, "--members and --bootstrap-expect are ignored", "way_out")
		l.must("stop", l.StopController(l.ctx, i))
	default:
		l.tell("  %s is to join nobody", id)
		l.set(i, "--members", "")
		l.set(i, "--join", "127.0.0.1:1")
		from := l.mark(i)
		l.restart(l.ctx, id)
		l.says(i, from, "has state already: --join is ignored", "way_out")
		l.must("stop", l.StopController(l.ctx, i))
	}
	l.must("flags", l.Reflag(i, func([]string) []string { return kept }))
	l.restart(l.ctx, id)
}

// wipe empties the disk of a member. It is refused under its id, and replaced.
func (l *life) wipe() {
	id := l.pick()
	i := l.members[id]
	l.lost = id
	l.tell("  wipe %s", id)
	l.must("kill", l.Kill(i))
	l.empty(i)
	from, says := l.mark(i), "a member has the id of this server, and another disk"
	if l.argument(i, "--join") != "" {
		l.set(i, "--join", l.joinWhom(id)) // those that it joined may be gone
	} else {
		says = "it was a member of it and has lost its disk"
	}
	l.restart(l.ctx, id)
	l.says(i, from, says, "another --server-id", "cluster replace "+id+" NEW-ID")
	l.unready(i)
	_, err := l.via().Cluster().AddMember(l.ctx,
		neon.MemberAdd{ID: id, RaftAddr: l.argument(i, "--raft-advertise")})
	l.refused("with an empty disk", err, http.StatusPreconditionFailed, "remove the old one",
		"under a new --server-id")
	if l.rng.IntN(2) == 0 {
		l.must("end", l.Kill(i))
	}
	l.replaceLost(id)
}

// wipedAndFirst empties the disk of a member and starts it before all others, with flags
// with which it founds a cluster alone. It serves nothing once another one is there.
func (l *life) wipedAndFirst() {
	id := l.pick()
	i := l.members[id]
	l.lost = id
	l.tell("  wipe %s, and start it first", id)
	l.gate.Lock() // nobody can know better than it while it is alone
	for _, member := range l.ids() {
		l.must("kill", l.Kill(l.members[member]))
	}
	l.empty(i)
	l.set(i, "--join", "")
	l.set(i, "--members", "")
	from := l.mark(i)
	l.restart(l.ctx, id)
	l.pause(8 * time.Second) // it listens for three
	for _, member := range l.ids() {
		if member != id {
			l.restart(l.ctx, member)
		}
	}
	l.says(i, from, "it was a member of it and has lost its disk", "--join",
		"cluster replace "+id+" NEW-ID")
	l.tell("  it says: %s", lastLine(l.since(i, from)))
	l.unready(i)
	l.gate.Unlock()
	l.replaceLost(id)
}

// replaceLost replaces a member that has lost its disk, elsewhere or where it was.
func (l *life) replaceLost(old string) {
	l.Helper()
	if l.rng.IntN(2) == 0 {
		l.replaceThis(old)
		return
	}
	i := l.members[old]
	id := fmt.Sprintf("c%d", l.next)
	l.next++
	l.tell("  %s takes the place of %s where that was", id, old)
	if l.Running(i) {
		l.must("end", l.Kill(i))
	}
	l.empty(i)
	l.set(i, "--members", "")
	l.set(i, "--server-id", id)
	l.set(i, "--join", l.joinWhom(old))
	l.must("start "+id, l.Restart(l.ctx, i))
	_, err := l.via().Cluster().ReplaceMember(l.ctx, old,
		neon.MemberAdd{ID: id, RaftAddr: l.argument(i, "--raft-advertise")})
	l.must("replace "+old+" by "+id, err)
	delete(l.members, old)
	l.members[id] = i
	l.gone = append(l.gone, old)
	l.lost = ""
}

// older puts an older copy of its disk back to a member. It is refused, and replaced.
func (l *life) older() {
	id := l.pick()
	i := l.members[id]
	l.tell("  an older copy for %s", id)
	l.must("stop", l.StopController(l.ctx, i))
	copied := filepath.Join(l.TempDir(), "copy")
	_ = os.Remove(filepath.Join(l.DataDir(i), "control.sock"))
	l.must("copy", os.CopyFS(copied, os.DirFS(l.DataDir(i))))
	l.restart(l.ctx, id)
	begun := l.commitIndex()
	for _, other := range l.ids() {
		if other == id {
			continue
		}
		l.await(other+" knows how far it has come", 30*time.Second, func() error {
			view, err := l.of(other).Cluster().Members(l.ctx)
			if err != nil {
				return err
			}
			for _, m := range view.Members {
				if m.ID == id && m.Applied >= begun+10 {
					return nil
				}
			}
			return fmt.Errorf("%+v", view)
		})
	}
	l.lost = id
	l.must("stop", l.StopController(l.ctx, i))
	l.empty(i)
	l.must("put back", os.CopyFS(l.DataDir(i), os.DirFS(copied)))
	l.ends(i, "gone back", "new id")
	l.replaceThis(id)
}
