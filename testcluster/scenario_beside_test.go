package testcluster_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// ailment is what is wrong with a pageserver that a story does not know, whenever the
// leader is killed.
type ailment uint8

const (
	none    ailment = iota
	dead            // it has just died
	hanging         // it takes connections and answers nothing, as a frozen process
	slow            // it answers everything late
)

// The pageservers beside a story. Nothing is placed on them but a secondary each, of a
// tenant of its own.
const (
	ailing neon.NodeID = 91
	sound  neon.NodeID = 92

	ofAiling, ofSound = 901, 902 // the numbers of these tenants
)

// beyond reports whether a pageserver is not the story's.
func beyond(id neon.NodeID) bool { return id == ailing || id == sound }

// beyondStory reports whether a tenant is not the story's.
func beyondStory(id neon.TenantID) bool { return id == idOf(ofAiling) || id == idOf(ofSound) }

const (
	// besideOffline is how long these pageservers may be silent, and noticed how long one
	// is ill when the leader is killed, so that the leader has said so in the log.
	besideOffline = 7 * time.Second
	noticed       = 2800 * time.Millisecond

	// answerWithin bounds a request that needs nothing of the ailing pageserver, from the
	// death of the leader. heardWithin bounds one that would need it, if it does not
	// answer heartbeats: one of them fails first.
	answerWithin = time.Second
	heardWithin  = 2 * time.Second

	// verdictWithin is how late a verdict may come because of the change of the leader.
	verdictWithin = time.Second

	// slowness is less than a heartbeat may take.
	slowness = 700 * time.Millisecond
)

// companions are the pageservers beside a story, and what is demanded while one of them
// is ill.
type companions struct {
	*script
	ailment ailment
	value   int            // of the last configuration
	ill     time.Time      // since when; zero: it is well
	demands sync.WaitGroup // under way
}

// accompany starts the companions of a story.
func (s *script) accompany(a ailment) {
	if a == none {
		return
	}
	c := &companions{script: s, ailment: a}
	for id, tenant := range map[neon.NodeID]int{ailing: ofAiling, sound: ofSound} {
		n, err := s.AddPageserver(id, testcluster.Zone(0))
		if err == nil {
			err = n.Start(s.within())
		}
		if err != nil {
			s.Fatal(err)
		}
		c.isUsed(id)
		s.schedule(id, neon.SchedulingPause)
		s.create(tenant, 0, neon.Placement{Kind: neon.PlaceSecondary})
		s.policy(tenant, neon.PolicyRequest{Scheduling: ptr(neon.ShardEssential)})
		s.do("have its tenant there", func(ctx context.Context, cl *testcluster.Client) error {
			return cl.Shards().MigrateSecondary(ctx, neon.Unsharded(idOf(tenant)),
				neon.MigrateRequest{Node: id})
		})
	}
	s.eventually("all know what is noted of silence", func(ctx context.Context) error {
		all, err := states(ctx, s.Cluster)
		if err == nil && all[0].AgreedLevel() < fsm.Level {
			err = fmt.Errorf("the level is %d", all[0].AgreedLevel())
		}
		return err
	})
	s.rest()
	s.beside = c
}

// isUsed waits until the controllers use a pageserver.
func (c *companions) isUsed(id neon.NodeID) {
	c.Helper()
	c.eventually(fmt.Sprintf("pageserver %s is used", id), func(ctx context.Context) error {
		n, err := c.Client().Nodes().Get(ctx, id)
		if err == nil && n.Availability != neon.NodeActive {
			err = fmt.Errorf("it is %s", n.Availability)
		}
		return err
	})
}

// fallIll is what happens just before the leader dies.
func (c *companions) fallIll() {
	if c == nil {
		return
	}
	if _, err := c.WaitLeader(c.within()); err != nil {
		c.Fatalf("step %q: %v", c.step_, err)
	}
	n := c.Fleet().Node(ailing)
	switch c.ill = time.Now(); c.ailment {
	case dead:
		n.Kill()
	case hanging:
		n.Pause()
	case slow:
		n.SetFaults(simpageserver.Fault{Kind: simpageserver.FaultDelay, Delay: slowness})
	}
	c.pass(noticed)
}

// recover has all demands met and the ailing pageserver well.
func (c *companions) recover() {
	if c == nil || c.ill.IsZero() {
		return
	}
	c.Helper()
	c.demands.Wait()
	c.ill = time.Time{}
	n := c.Fleet().Node(ailing)
	switch c.ailment {
	case dead:
		c.pageserver(ailing)
	case hanging:
		n.Resume()
	case slow:
		n.SetFaults()
	}
	c.isUsed(ailing)
}

// settled waits for what is demanded of the leader that is there.
func (c *companions) settled() {
	if c != nil {
		c.demands.Wait()
	}
}

// demand begins to look how requests are answered after the death of the leader.
func (c *companions) demand() {
	if c == nil {
		return
	}
	c.value++
	value, died := c.value, time.Now()
	answered := func(tenant int, limit time.Duration) {
		c.demands.Go(func() { c.answered(tenant, value, died, limit) })
	}
	answered(ofSound, answerWithin)
	if c.ailment != slow {
		answered(ofAiling, heardWithin)
		c.demands.Go(func() { c.judged(c.ill) })
	}
}

// answered demands that a change of a tenant is answered in time, as done or not.
func (c *companions) answered(tenant, value int, died time.Time, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), restLimit)
	defer cancel()
	err := c.Client().Tenants().PutConfig(ctx, idOf(tenant),
		conf(fmt.Sprintf(`{"gc_horizon":%d}`, value)))
	if took := time.Since(died); took > limit {
		c.Errorf("step %q: a change of tenant %d was answered %s after the death of the leader (%v)",
			c.step_, tenant, took, err)
	}
}

// judged demands that the ailing pageserver is given up as soon as it would have been by
// the leader that saw it fall ill.
func (c *companions) judged(ill time.Time) {
	c.pass(time.Until(ill.Add(besideOffline + verdictWithin)))
	ctx, cancel := context.WithTimeout(context.Background(), restLimit)
	defer cancel()
	n, err := c.Client().Nodes().Get(ctx, ailing)
	if err != nil || n.Availability != neon.NodeOffline {
		c.Errorf("step %q: a pageserver that has not answered for %s is %s (%d, %v)", c.step_,
			time.Since(ill), n.Availability, client.StatusOf(err), err)
	}
}

// pageservers are those that the story knows.
func (s *script) pageservers() (list []*simpageserver.Node) {
	for _, n := range s.Fleet().Nodes() {
		if !beyond(n.ID()) {
			list = append(list, n)
		}
	}
	return list
}

// besides are the ids of the pageservers that the story does not know.
func (s *script) besides() []neon.NodeID {
	if s.beside == nil {
		return nil
	}
	return []neon.NodeID{ailing}
}
