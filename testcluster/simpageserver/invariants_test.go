package simpageserver

import (
	"maps"
	"strings"
	"testing"

	"quorate/api/neon"
)

// oracleCase drives an oracle through effects. The legal variant must be silent,
// the illegal one must report exactly the named invariants.
type oracleCase struct {
	legal   func(o *oracleRun)
	illegal func(o *oracleRun)
	reports []int
}

// oracleRun has three pageservers: a and b, and a2, a's next incarnation, which
// starts when restart is called.
type oracleRun struct {
	*Oracle
	a, b, a2 uint32
	at       map[uint32]transition
}

func newOracleRun() *oracleRun {
	r := &oracleRun{Oracle: NewOracle(OracleOptions{History: 128}), at: map[uint32]transition{}}
	r.a, r.b = r.started(1, 1), r.started(2, 1)
	return r
}

func (r *oracleRun) restart() {
	r.ended(r.a)
	r.a2 = r.started(1, 2)
}

func (r *oracleRun) grant(
	gen neon.Generation, node neon.NodeID,
) {
	r.Granted(shardOf(0), gen, node)
}

// put is a location PUT that the pageserver accepts.
func (r *oracleRun) put(p uint32, m mode, gen neon.Generation) { r.putBy(p, m, gen, bySender) }

func (r *oracleRun) putBy(p uint32, m mode, gen neon.Generation, by source) {
	r.received(p, &locationChange{shard: shardOf(0), mode: m, gen: gen, hasGen: m.attached()})
	before := r.at[p]
	t := transition{shard: shardOf(0), from: before.to, fromGen: before.gen, to: m, gen: gen}
	r.at[p] = t
	r.moved(p, t, by)
}

// putAwayAndBack takes a shard from the node that compute uses. The call arrives before the
// tenant serves again, or after that.
func (r *oracleRun) putAwayAndBack(before bool) {
	tenant := shardOf(0).Tenant
	r.put(r.a, modeSingle, 1)
	r.notified(tenant, []neon.NodeID{1}, false)
	r.put(r.b, modeSingle, 2)
	r.PutAway(tenant)
	if !before {
		r.Serving(tenant)
	}
	r.received(r.a, &locationChange{shard: shardOf(0), mode: modeNone})
	r.Serving(tenant)
	r.moved(r.a,
		transition{shard: shardOf(0), from: modeSingle, fromGen: 1, to: modeNone}, bySender)
}

// reattach is the answer that a restarted pageserver gets for its disk's shard.
func (r *oracleRun) reattach(p uint32, diskGen, gen neon.Generation) {
	r.answered(p, []reattachTenant{{shard: shardOf(0), gen: gen, hasGen: true, mode: modeSingle}})
	t := transition{shard: shardOf(0), from: modeSingle, fromGen: diskGen, to: modeSingle, gen: gen}
	r.at[p] = t
	r.moved(p, t, byReattach)
}

// generationCases are about how generations are committed and raised.
func generationCases() map[string]oracleCase {
	return map[string]oracleCase{
		"I1 commit before send": {
			legal:   func(r *oracleRun) { r.grant(1, 1); r.put(r.a, modeSingle, 1) },
			illegal: func(r *oracleRun) { r.grant(1, 1); r.put(r.a, modeSingle, 2) },
			reports: []int{1},
		},
		"I1 committed for that node": {
			legal:   func(r *oracleRun) { r.grant(1, 1); r.grant(2, 2); r.put(r.b, modeSingle, 2) },
			illegal: func(r *oracleRun) { r.grant(1, 1); r.put(r.b, modeSingle, 1) },
			reports: []int{1},
		},
		"I1 is skipped without grants": {
			legal: func(r *oracleRun) { r.put(r.a, modeSingle, 7) },
		},
		"I2 one node": {
			legal: func(
				r *oracleRun,
			) {
				r.put(r.a, modeSingle, 1)
				r.put(r.a, modeSingle, 1)
				r.put(r.b, modeSingle, 2)
			},
			illegal: func(
				r *oracleRun,
			) {
				r.put(r.a, modeSingle, 1)
				r.restart()
				r.put(r.b, modeSingle, 1)
			},
			reports: []int{2},
		},
		"I2 one incarnation": {
			legal: func(r *oracleRun) {
				r.grant(1, 1)
				r.put(r.a, modeSingle, 1)
				r.restart()
				r.grant(2, 1)
				r.put(r.a2, modeSingle, 1) // a retry that was on its way
			},
			illegal: func(
				r *oracleRun,
			) {
				r.grant(1, 1)
				r.put(r.a, modeSingle, 1)
				r.restart()
				r.put(r.a2, modeSingle, 1)
			},
			reports: []int{2},
		},
		"I2 an attachment that was given up needs a new number": {
			legal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.put(r.a, modeSecondary, 0)
				r.put(r.a, modeSingle, 2)
			},
			illegal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.put(r.a, modeSecondary, 0)
				r.put(r.a, modeSingle, 1)
			},
			reports: []int{2},
		},
		"I2 excuses an attachment that a late call took away": {
			legal: func(r *oracleRun) {
				r.grant(1, 1)
				r.put(r.a, modeSingle, 1)
				r.putBy(r.a, modeSecondary, 0, byLate)
				r.put(r.a, modeSingle, 1) // the sender cannot know
				if r.Late() != 1 {
					r.journal.violate(2, shardOf(0), 1, "late effect not counted")
				}
			},
		},
		"I3 commits never fall": {
			legal: func(
				r *oracleRun,
			) {
				r.grant(1, 1)
				r.grant(5, 2)
				r.grant(1, 1)
				r.grant(5, 2)
			},
			illegal: func(r *oracleRun) { r.grant(5, 1); r.grant(4, 1) },
			reports: []int{3},
		},
		"I4 a number is consumed": {
			legal:   func(r *oracleRun) { r.grant(1, 1); r.grant(2, 2) },
			illegal: func(r *oracleRun) { r.grant(1, 1); r.grant(1, 2) },
			reports: []int{4},
		},
		"I5 re-attach raises by one": {
			legal: func(r *oracleRun) {
				r.grant(1, 1)
				r.put(r.a, modeSingle, 1)
				r.restart()
				r.grant(2, 1) // its answer was lost
				r.grant(3, 1)
				r.reattach(r.a2, 1, 3)
			},
			illegal: func(r *oracleRun) {
				r.grant(1, 1)
				r.put(r.a, modeSingle, 1)
				r.restart()
				r.grant(3, 1)
				r.reattach(r.a2, 1, 3)
			},
			reports: []int{5},
		},
		"I5 re-attach raises only the node's own rows": {
			legal: func(r *oracleRun) {
				r.grant(1, 1)
				r.put(r.a, modeSingle, 1)
				r.restart()
				r.grant(2, 1)
				r.reattach(r.a2, 1, 2)
			},
			illegal: func(r *oracleRun) {
				r.grant(1, 1)
				r.put(r.a, modeSingle, 1)
				r.restart()
				r.grant(2, 2)
				r.grant(3, 1)
				r.reattach(r.a2, 1, 3)
			},
			reports: []int{5},
		},
		"I5 re-attach raises at all": {
			legal: func(
				r *oracleRun,
			) {
				r.put(r.a, modeSingle, 1)
				r.restart()
				r.reattach(r.a2, 1, 2)
			},
			illegal: func(
				r *oracleRun,
			) {
				r.put(r.a, modeSingle, 1)
				r.restart()
				r.reattach(r.a2, 1, 1)
			},
			reports: []int{5},
		},
	}
}

// placementCases are about which attachments may stand beside each other.
func placementCases() map[string]oracleCase {
	return map[string]oracleCase{
		"I6 no step back": {
			legal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 2)
				r.put(r.a, modeSecondary, 0)
				r.put(r.b, modeSingle, 1)
			},
			illegal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 2)
				r.put(r.a, modeSecondary, 0)
				r.put(r.a, modeSingle, 1)
			},
			reports: []int{6},
		},
		"I6 excuses late calls": {
			legal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 2)
				r.put(r.a, modeSecondary, 0)
				r.putBy(r.a, modeSingle, 1, byLate)
				if r.Late() != 1 {
					r.journal.violate(6, shardOf(0), 1, "late effect not counted")
				}
			},
		},
		"I7 one holder of the newest": {
			legal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.put(r.a, modeStale, 1)
				r.put(r.b, modeMulti, 2)
				r.put(r.a, modeSecondary, 0)
				r.put(r.b, modeSingle, 2)
			},
			illegal: func(r *oracleRun) { r.put(r.a, modeSingle, 1); r.put(r.b, modeSingle, 1) },
			reports: []int{2, 7},
		},
		"I7 multi is the newer one": {
			legal:   func(r *oracleRun) { r.put(r.a, modeSingle, 1); r.put(r.b, modeMulti, 2) },
			illegal: func(r *oracleRun) { r.put(r.a, modeSingle, 2); r.put(r.b, modeMulti, 1) },
			reports: []int{7},
		},
		"I7 stale does not re-attach": {
			legal:   func(r *oracleRun) { r.put(r.a, modeSingle, 1); r.put(r.a, modeStale, 1) },
			illegal: func(r *oracleRun) { r.put(r.a, modeSingle, 1); r.put(r.a, modeStale, 2) },
			reports: []int{7},
		},
		"I9 compute moves first": {
			legal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.notified(shardOf(0).Tenant, []neon.NodeID{1}, false)
				r.put(r.b, modeSingle, 2)
				r.notified(shardOf(0).Tenant, []neon.NodeID{2}, false)
				r.put(r.a, modeSecondary, 0)
				r.put(r.b, modeNone, 0) // the only one: detached on purpose
			},
			illegal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.notified(shardOf(0).Tenant, []neon.NodeID{1}, false)
				r.put(r.b, modeSingle, 2)
				r.put(r.a, modeSecondary, 0)
			},
			reports: []int{9},
		},
		"I9 a tenant that was made again has another kind of shard": {
			legal: func(r *oracleRun) {
				r.Granted(shardOf(0), 1, 1)
				r.put(r.a, modeSingle, 1)
				r.notified(shardOf(0).Tenant, []neon.NodeID{1}, false)
				r.Granted(neon.ShardID{Tenant: shardOf(0).Tenant, Count: 1}, 2, 1)
				r.Granted(shardOf(0), 3, 2)
				r.put(r.b, modeSingle, 3)
				r.notified(shardOf(0).Tenant, []neon.NodeID{2}, false)
				r.put(r.a, modeSecondary, 0)
			},
		},
		"I9 a tenant in deletion has no compute": {
			legal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.notified(shardOf(0).Tenant, []neon.NodeID{1}, false)
				r.put(r.b, modeSingle, 2)
				r.Deleting(shardOf(0).Tenant)
				r.put(r.a, modeNone, 0)
			},
		},
		"I9 what was asked before compute used the tenant again": {
			legal:   func(r *oracleRun) { r.putAwayAndBack(true) },
			illegal: func(r *oracleRun) { r.putAwayAndBack(false) },
			reports: []int{9},
		},
		"I9 nobody knows of what a late call attached": {
			legal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.notified(shardOf(0).Tenant, []neon.NodeID{1}, false)
				r.put(r.a, modeSecondary, 0)
				r.putBy(r.a, modeSingle, 2, byLate)
				r.put(r.b, modeSingle, 3)
				r.put(r.a, modeSecondary, 0)
			},
			illegal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.notified(shardOf(0).Tenant, []neon.NodeID{1}, false)
				r.put(r.a, modeSecondary, 0)
				r.putBy(r.a, modeSingle, 2, byLate)
				r.put(r.a, modeStale, 2) // from here on it is known
				r.put(r.b, modeSingle, 3)
				r.put(r.a, modeSecondary, 0)
			},
			reports: []int{9},
		},
		"I9 a dead successor is none": {
			legal: func(r *oracleRun) {
				r.put(r.b, modeSingle, 1)
				r.notified(shardOf(0).Tenant, []neon.NodeID{2}, false)
				r.put(r.a, modeSingle, 2)
				r.ended(r.a)
				r.put(r.b, modeNone, 0)
			},
		},
	}
}

// dataCases are about calls, validation and deletion.
func dataCases() map[string]oracleCase {
	return map[string]oracleCase{
		"I12 stopped shards are left alone": {
			legal: func(
				r *oracleRun,
			) {
				r.Stopped(shardOf(0))
				r.Resumed(shardOf(0))
				r.put(r.a, modeSingle, 1)
			},
			illegal: func(r *oracleRun) { r.Stopped(shardOf(0)); r.put(r.a, modeSingle, 1) },
			reports: []int{12},
		},
		"I13 validate knows the newest": {
			legal: func(r *oracleRun) {
				r.grant(1, 1)
				items := []validation{{shardOf(0), 1, true}, {shardOf(1), 1, false}}
				before := r.validating(items)
				r.grant(2, 2) // while the answer was under way
				r.validated(r.a, items, before)
			},
			illegal: func(r *oracleRun) {
				r.grant(1, 1)
				r.grant(2, 2)
				items := []validation{{shardOf(0), 1, true}}
				r.validated(r.a, items, r.validating(items))
			},
			reports: []int{13},
		},
		"I13 without grants, attachments count": {
			legal: func(r *oracleRun) {
				r.put(r.b, modeSingle, 2)
				items := []validation{{shardOf(0), 2, true}}
				r.validated(r.b, items, r.validating(items))
			},
			illegal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.put(r.b, modeSingle, 2)
				items := []validation{{shardOf(0), 1, true}}
				r.validated(r.a, items, r.validating(items))
			},
			reports: []int{13},
		},
		"I13 unknown is never valid": {
			legal: func(r *oracleRun) {
				items := []validation{{shardOf(1), 1, true}}
				r.validated(r.a, items, r.validating(items))
			},
			illegal: func(r *oracleRun) {
				r.grant(1, 1)
				items := []validation{{shardOf(1), 1, true}}
				r.validated(r.a, items, r.validating(items))
			},
			reports: []int{13},
		},
		"I15 detach before delete": {
			legal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.put(r.b, modeSingle, 2)
				r.setUnreachable(r.b, true)
				r.put(r.a, modeNone, 0)
				r.Deleting(shardOf(0).Tenant)
				r.prefixDeleted(r.a, shardOf(0), false)
			},
			illegal: func(
				r *oracleRun,
			) {
				r.put(r.a, modeSingle, 1)
				r.prefixDeleted(r.b, shardOf(0), false)
			},
			reports: []int{15},
		},
		"I15 intent before delete": {
			legal: func(r *oracleRun) { r.prefixDeleted(r.a, shardOf(0), false) },
			illegal: func(r *oracleRun) {
				r.Deleting(shardOf(1).Tenant)
				r.prefixDeleted(r.a, shardOf(0), false)
			},
			reports: []int{15},
		},
		"I15 nothing comes back": {
			legal: func(r *oracleRun) {
				r.prefixDeleted(r.a, shardOf(0), false)
				r.Forget(shardOf(0).Tenant)
				r.put(r.a, modeSingle, 1)
			},
			illegal: func(
				r *oracleRun,
			) {
				r.prefixDeleted(r.a, shardOf(0), false)
				r.put(r.a, modeSingle, 1)
			},
			reports: []int{15},
		},
		"I15 the next tenant keeps its objects": {
			legal: func(r *oracleRun) {
				r.Deleting(shardOf(0).Tenant)
				r.prefixDeleted(r.a, shardOf(0), false)
				r.prefixDeleted(r.b, shardOf(0), false)
				r.Again(shardOf(0).Tenant)
				r.put(r.a, modeSingle, 1)
				r.prefixDeleted(r.b, shardOf(0), true) // nobody can know of it
				r.put(r.a, modeNone, 0)
				r.Deleting(shardOf(0).Tenant)
				r.prefixDeleted(r.b, shardOf(0), false)
			},
			illegal: func(r *oracleRun) {
				r.Deleting(shardOf(0).Tenant)
				r.Again(shardOf(0).Tenant)
				r.prefixDeleted(r.b, shardOf(0), false)
			},
			reports: []int{15},
		},
		"I32 nothing is attached to what is put back": {
			legal: func(r *oracleRun) {
				r.travels(r.a, shardOf(0))()
				r.put(r.a, modeSingle, 1)
			},
			illegal: func(r *oracleRun) {
				r.travels(r.a, shardOf(0))
				r.put(r.a, modeSingle, 1)
			},
			reports: []int{32},
		},
		"I32 what is attached is not put back": {
			legal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.put(r.a, modeNone, 0)
				r.travels(r.a, shardOf(0))
			},
			illegal: func(r *oracleRun) {
				r.put(r.a, modeSingle, 1)
				r.travels(r.b, shardOf(0))
			},
			reports: []int{32},
		},
	}
}

func TestInvariants(t *testing.T) {
	cases := generationCases()
	maps.Copy(cases, placementCases())
	maps.Copy(cases, dataCases())
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			run := newOracleRun()
			c.legal(run)
			if err := run.Err(); err != nil {
				t.Errorf("the legal case is reported: %v", err)
			}
			if c.illegal == nil {
				return
			}
			run = newOracleRun()
			c.illegal(run)
			sameInvariants(t, run.Oracle, c.reports...)
		})
	}
}

func TestI16WantsAnIndexThatTheNewestOwnerSees(t *testing.T) {
	w := newWorld(t, Options{})
	a, b := w.node(1), w.node(2)
	shard := shardOf(0)
	w.attach(a, shard)
	w.timeline(a, shard, 1)
	w.fleet.Durable(timelineOf(1), shard)
	w.attach(b, shard)
	w.timeline(b, shard, 2)
	w.fleet.Durable(timelineOf(2), shard)
	w.silent()
	w.fleet.Durable(timelineOf(3), shard) // never created
	w.reported(16)
}

func TestI16SeesATimelineThatASuccessorLost(t *testing.T) {
	w := newWorld(t, Options{})
	a, b := w.node(1), w.node(2)
	shard := shardOf(0)
	w.attach(a, shard)
	w.timeline(a, shard, 1)
	w.fleet.Durable(timelineOf(1), shard)
	w.attach(b, shard)
	w.put(a, shard, neon.Detached, 0)
	if err := w.fleet.CheckQuiescent(); err != nil {
		t.Fatal(err)
	}
	w.fleet.Store().deleteTimeline(remoteID{shard, timelineOf(1)}, 1)
	if err := w.fleet.CheckQuiescent(); err == nil || !strings.Contains(err.Error(), "I16") {
		t.Fatalf("at rest: %v", err)
	}
}

func TestI17DeletedTimelinesStayAway(t *testing.T) {
	w := newWorld(t, Options{Store: NewStore(StoreOptions{WALRate: 1 << 20})})
	a, b := w.node(1), w.node(2)
	shard := shardOf(0)
	w.attach(a, shard)
	w.timeline(a, shard, 1)
	w.attach(b, shard)
	w.want(202, b, "DELETE", timelinePath(shard)+"/"+timelineOf(1).String(), nil)
	w.want(404, b, "GET", timelinePath(shard)+"/"+timelineOf(1).String(), nil)
	w.fleet.Removed(timelineOf(1), shard.Tenant)
	w.put(b, shard, neon.AttachedSingle, w.auth.grant(shard, 2))
	w.silent()
	w.growLayers(a, shard, 1) // the stale owner was never told
	w.attach(b, shard)
	w.reported(17)
	w.put(a, shard, neon.Detached, 0)
	if err := w.fleet.CheckQuiescent(); err == nil || !strings.Contains(err.Error(), "I17") {
		t.Errorf("at rest: %v", err)
	}
}
