package testcluster_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
)

var (
	lifeRounds = flag.Int("life.rounds", 3, "rounds of TestLifeOfACluster")
	lifeSeed   = flag.Uint64("life.seed", 1, "seed of TestLifeOfACluster")
	lifeOnly   = flag.String("life.only", "", "the only thing that happens in TestLifeOfACluster")
	lifeOther  = flag.String("life.other", "",
		"storage_controller to which members of TestLifeOfACluster are upgraded (a copy of this one)")
)

const (
	lifeSeats   = 8 // places where a member can run
	mostMembers = 5
	lifeTenants = 3

	// A round takes a few seconds. Whatever has not come true after roundLimit does not.
	roundLimit = 90 * time.Second
)

// life is a cluster of processes whose members come, go, die and come back while clients
// write. Between two rounds the members are all there.
type life struct {
	*testing.T
	*testcluster.Cluster
	ctx     context.Context // of the round
	rng     *rand.Rand
	members map[string]int // the controller that runs the member with an id
	gone    []string       // ids of members that were removed
	lost    string         // a member that lost its disk, "" for none
	next    int            // number of the next id
	other   string         // the program to which members are upgraded
	program string
	history []string

	gate   sync.RWMutex // held by a writer while it writes
	failed atomic.Pointer[error]
}

// happening is one thing that can happen to a cluster of some size.
type happening struct {
	name        string
	least, most int // members
	weight      int
	run         func(*life)
}

var happenings = []happening{
	{"add", 1, mostMembers - 1, 4, (*life).add},
	{"remove", 2, mostMembers, 3, (*life).remove},
	{"replace", 1, mostMembers, 3, (*life).replace},
	{"killed while added", 1, mostMembers - 1, 3, (*life).killedWhileAdded},
	{"killed while replaced", 2, mostMembers, 3, (*life).killedWhileReplaced},
	{"wipe", 3, mostMembers, 3, (*life).wipe},
	{"wiped and first", 3, mostMembers, 3, (*life).wipedAndFirst},
	{"older copy", 3, mostMembers, 3, (*life).older},
	{"other flags", 1, mostMembers, 3, (*life).otherFlags},
	{"contradiction", 1, mostMembers, 3, (*life).contradiction},
	{"remove beside a silent one", 3, 3, 2, (*life).removeBesideSilent},
	{"wrong commands", 1, mostMembers, 2, (*life).wrongCommands},
	{"kill the leader", 1, mostMembers, 3, (*life).killLeader},
	{"kill one", 1, mostMembers, 3, (*life).killOne},
	{"kill all", 1, mostMembers, 1, (*life).killAll},
	{"freeze", 1, mostMembers, 3, (*life).freeze},
	{"lag behind", 3, mostMembers, 3, (*life).lag},
	{"upgrade", 1, mostMembers, 2, (*life).upgrade},
	{"grow and shrink", 1, mostMembers, 1, (*life).growAndShrink},
}

// TestLifeOfACluster lets random things happen to a cluster of processes under load, and
// demands after each of them that there is a leader, that every member has every write that
// was acknowledged, that their states are equal, and that exactly the right ones are members.
// Everything that is refused has to come with a way out.
func TestLifeOfACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the real program")
	}
	l := bear(t, *lifeSeed)
	begun := time.Now()
	for round := range *lifeRounds {
		l.round(round)
	}
	t.Logf("seed %d: %d rounds in %s, %d writes acknowledged", *lifeSeed, *lifeRounds,
		time.Since(begun).Round(time.Second), l.Ledger().Acknowledged())
}

// bear starts a cluster of one, and the load.
func bear(t *testing.T, seed uint64) *life {
	l := &life{
		T: t, rng: rand.New(rand.NewPCG(seed, 0x11fe)), members: map[string]int{"c1": 0}, next: 2,
		program: build(t, program), other: *lifeOther,
	}
	if l.other == "" {
		l.other = filepath.Join(t.TempDir(), "other")
		if err := os.Link(l.program, l.other); err != nil {
			t.Fatal(err)
		}
	}
	l.Cluster = testcluster.Run(t, testcluster.Builder{
		Mode: testcluster.Processes, Binary: l.program, Joiners: lifeSeats - 1,
		Pageservers: 2, Seed: seed,
		Args: []string{"--raft-snapshot-threshold", "100", "--raft-trailing-logs", "20"},
	})
	l.ctx = within(t, roundLimit)
	create(t, l.ctx, l.Cluster, lifeTenants, 1, 0)
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for n := range lifeTenants {
		load.Go(func() { l.write(ctx, n) })
	}
	t.Cleanup(func() {
		stop()
		load.Wait()
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, strings.Join(l.history, "\n"))
		}
	})
	return l
}

// write configures a tenant again and again; the ledger remembers what was acknowledged.
func (l *life) write(ctx context.Context, n int) {
	any := l.Client().WithTryTimeout(3 * time.Second)
	for value := 1; ctx.Err() == nil; value++ {
		l.gate.RLock()
		try, cancel := context.WithTimeout(ctx, roundLimit)
		err := any.Tenants().PutConfig(try, tenantID(n),
			conf(fmt.Sprintf(`{"gc_horizon":%d}`, value)))
		cancel()
		l.gate.RUnlock()
		if err != nil && ctx.Err() == nil {
			l.failed.CompareAndSwap(nil, &err)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (l *life) round(n int) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.T.Context(), roundLimit)
	defer cancel()
	l.ctx = ctx
	what := l.choose()
	begun := time.Now()
	l.tell("round %d: %s of %v", n, what.name, l.ids())
	what.run(l)
	acted := time.Now()
	l.check()
	l.tell("round %d: done in %s, checked in %s; %d writes", n,
		acted.Sub(begun).Round(time.Millisecond), time.Since(acted).Round(time.Millisecond),
		l.Ledger().Acknowledged())
}

// choose draws what happens next.
func (l *life) choose() happening {
	var all []happening
	for _, h := range happenings {
		if len(l.members) < h.least || len(l.members) > h.most {
			continue
		}
		if h.name == *lifeOnly {
			return h
		}
		for range h.weight {
			all = append(all, h)
		}
		if len(l.members) < 3 && h.most < mostMembers { // it should grow
			all = append(all, h, h, h, h)
		}
	}
	if *lifeOnly != "" && len(l.members) < 3 {
		return happenings[0]
	}
	return all[l.rng.IntN(len(all))]
}

func (l *life) tell(format string, args ...any) {
	line := time.Now().Format("15:04:05.000 ") + fmt.Sprintf(format, args...)
	l.history = append(l.history, line)
	if testing.Verbose() {
		fmt.Println(line)
	}
}

func (l *life) must(what string, err error) {
	l.Helper()
	if err != nil {
		l.Fatalf("%s: %v", what, err)
	}
}

// ids are the members, sorted.
func (l *life) ids() []string { return slices.Sorted(maps.Keys(l.members)) }

// pick draws a member that is none of the others.
func (l *life) pick(others ...string) string {
	ids := slices.DeleteFunc(l.ids(), func(id string) bool { return slices.Contains(others, id) })
	return ids[l.rng.IntN(len(ids))]
}

// leader is the member that leads.
func (l *life) leader() string {
	l.Helper()
	i, err := l.WaitLeader(l.ctx)
	l.must("leader", err)
	for id, at := range l.members {
		if at == i {
			return id
		}
	}
	l.Fatalf("controller %d leads, which is no member", i)
	return ""
}

// via asks a random member first.
func (l *life) via() *testcluster.Client {
	return l.ClientFrom(l.members[l.pick(l.lost)]).WithTryTimeout(20 * time.Second)
}

// of asks the process of a member.
func (l *life) of(id string) *testcluster.Client {
	return l.ClientOf(l.members[id]).WithTryTimeout(3 * time.Second)
}

func (l *life) pause(most time.Duration) {
	<-time.After(time.Duration(l.rng.Int64N(int64(most))))
}

// await waits until something is so, and for no longer than a limit.
func (l *life) await(what string, limit time.Duration, try func() error) {
	l.Helper()
	end := time.After(limit)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-time.After(25 * time.Millisecond):
		case <-end:
			l.Fatalf("%s: not within %s: %v", what, limit, err)
		case <-l.ctx.Done():
			l.Fatalf("%s: %v", what, errors.Join(err, l.ctx.Err()))
		}
	}
}

// check demands everything that has to be so between two rounds. Nobody writes meanwhile.
func (l *life) check() {
	l.Helper()
	l.leader()
	if err := l.failed.Load(); err != nil {
		l.Fatalf("a write: %v", *err)
	}
	l.gate.Lock()
	defer l.gate.Unlock()
	for _, id := range l.ids() {
		l.await(id+" is as it should be", 30*time.Second, func() error { return l.look(id) })
	}
	for _, id := range l.ids() {
		l.must("what "+id+" has", l.Ledger().Verify(l.ctx, l.of(id)))
	}
	l.must("the oracle", l.Oracle().Err())
	for i := range l.Controllers() {
		log := l.Log(i)
		for _, never := range []string{
			"panic: ", "out of service: its state", "replaced the state of this replica",
		} {
			if strings.Contains(log, never) {
				l.Fatalf("controller %d says %q", i, never)
			}
		}
	}
}

// look compares what a member says of the cluster with what should be.
func (l *life) look(id string) error {
	if err := l.of(id).Cluster().Ready(l.ctx); err != nil {
		return err
	}
	view, err := l.of(id).Cluster().CurrentMembers(l.ctx)
	if err != nil {
		return err
	}
	var have []string
	for _, m := range view.Members {
		have = append(have, m.ID)
		switch {
		case m.Divergence != "":
			l.Fatalf("%s says that %s is diverged: %s", id, m.ID, m.Divergence)
		case m.Role == neon.RoleLearner, !m.Connected, m.Equality != neon.MemberEqual, m.Lag > 0:
			return fmt.Errorf("%+v", m)
		}
	}
	slices.Sort(have)
	if want := l.ids(); !view.Current || !slices.Equal(have, want) {
		return fmt.Errorf("the members are %v, and should be %v (current: %v)", have, want,
			view.Current)
	}
	return nil
}
