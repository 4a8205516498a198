package reconciler

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/scheduler"
)

// Chaos makes a leader disturb its own cluster, to show that it does not matter.
type Chaos struct {
	// Interval is the pause between disturbances; 0: there are none. Each moves many
	// shards to their secondaries, or one to another node of its zone after warming it.
	Interval time.Duration

	// NextExit is the next time at which the leading process is to be ended; false,
	// or nil, means never. Only the leader exits, so that others can take over.
	NextExit func(after time.Time) (time.Time, bool)

	// Exit ends the process; it goes with NextExit.
	Exit func()
}

// chaosBatch is how many shards are moved to their secondaries at a time.
const chaosBatch = 128

// chaos disturbs the cluster.
type chaos struct {
	ctx    context.Context
	opts   Chaos
	log    decide.Log
	logger *slog.Logger
	loads  func() map[neon.NodeID]scheduler.Load
	commit func([]fsm.Intent) (refused []neon.ShardID)
}

// run disturbs the cluster until the term ends.
func (c *chaos) run() {
	if c.opts.Interval <= 0 {
		return
	}
	tick := time.NewTicker(c.opts.Interval)
	defer tick.Stop()
	exit := c.exitTimer()
	defer exit.Stop()
	for {
		select {
		case <-tick.C:
			if rand.IntN(2) == 0 {
				c.logger.Info("Chaos iteration: MigrationsToSecondary...")
				c.commit(c.toSecondaries())
			} else {
				c.logger.Info("Chaos iteration: GracefulMigrationsAnywhere...")
				c.commit(c.elsewhere())
			}
		case <-exit.C:
			c.logger.Warn("Injecting chaos: force kill")
			c.opts.Exit()
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// exitTimer runs out at the next exit, or never.
func (c *chaos) exitTimer() *time.Timer {
	if next := c.opts.NextExit; next != nil {
		if at, ok := next(time.Now()); ok {
			return time.NewTimer(time.Until(at))
		}
	}
	never := time.NewTimer(time.Hour)
	never.Stop()
	return never
}

// candidates lists the shards that may be disturbed: those of tenants that are not
// pinned, and not on their way already. Those outside their home zone come first, so
// that the cluster does not drift.
func (c *chaos) candidates(st *fsm.State) (away, home []fsm.Shard) {
	for sh := range st.ShardsFrom(neon.ShardID{}) {
		tenant, _ := st.Tenant(sh.ID.Tenant)
		if tenant.Scheduling != neon.ShardActive || tenant.Deleting || sh.Unmanaged ||
			sh.Attached == 0 || sh.PreferredNode != 0 {
			continue
		}
		if n, _ := st.Node(sh.Attached); !sh.PreferredAZ.IsZero() && n.AZ != sh.PreferredAZ {
			away = append(away, sh)
		} else {
			home = append(home, sh)
		}
	}
	shuffle(away)
	shuffle(home)
	return away, home
}

func shuffle(s []fsm.Shard) { rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] }) }

func (c *chaos) toSecondaries() (intents []fsm.Intent) {
	st := c.log.State()
	sched := scheduler.New(st, c.loads())
	away, home := c.candidates(st)
	for _, sh := range append(away, home...) {
		if len(intents) == chaosBatch {
			break
		}
		able := slices.DeleteFunc(slices.Clone(sh.Secondary),
			func(n neon.NodeID) bool { return !sched.Takes(n) })
		if len(able) == 0 {
			continue
		}
		to := able[rand.IntN(len(able))]
		if in, err := sched.Migrate(sh, to, scheduler.OverrideScheduler); err == nil {
			c.logger.Info("Injecting chaos: migrate", "shard", sh.ID, "from", sh.Attached, "to", to)
			intents = append(intents, in)
		}
	}
	return intents
}

func (c *chaos) elsewhere() []fsm.Intent {
	st := c.log.State()
	away, home := c.candidates(st)
	all := append(away, home...)
	if len(all) == 0 {
		return nil
	}
	sh := all[rand.IntN(len(all))]
	sched := scheduler.New(st, c.loads())
	var to []neon.NodeID
	for n := range st.Nodes() {
		if n.ID != sh.Attached && sched.Takes(n.ID) &&
			(sh.PreferredAZ.IsZero() || n.AZ == sh.PreferredAZ) {
			to = append(to, n.ID)
		}
	}
	if len(to) == 0 {
		c.logger.Info("no candidate nodes found for migrating shard within its home AZ",
			"shard", sh.ID)
		return nil
	}
	in, err := sched.Prewarm(sh, to[rand.IntN(len(to))],
		scheduler.OverrideScheduler)
	if err != nil {
		return nil
	}
	c.logger.Info("Injecting chaos: migrate", "shard", sh.ID, "from", sh.Attached,
		"to", in.PreferredNode)
	return []fsm.Intent{in}
}
