package timetravel

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/duty"
	"quorate/internal/fanout"
	"quorate/internal/wait"
)

const (
	// shortestPause and longestPause bound the pause between two tries to end a time
	// travel that no request waits for.
	shortestPause = time.Second
	longestPause  = time.Minute

	// callTime is more than a call of an earlier leader can take: a pageserver gives up
	// when its caller has. It is also how long one that has not answered may go on: over a
	// link that is cut it does not learn that its caller has gone.
	callTime = 6 * time.Minute

	// mostLost is how many calls of one time travel may be lost: it takes longer than calls
	// may, or no pageserver can be reached.
	mostLost = 2

	// endTime bounds the wait for the end to be recorded, after the client has gone.
	endTime = 5 * time.Second
)

// Reality is what the leader sees of the shards on the pageservers.
type Reality interface {
	decide.Reconciler

	Status(id neon.ShardID) decide.ShardStatus
}

// Travels puts the remote data of tenants back in time.
type Travels struct {
	log         decide.Log
	reality     Reality
	pageservers fanout.Caller
	logger      *slog.Logger

	turns duty.Turns[neon.TenantID] // held by who works on a record
	term  duty.Term                 // in which pageservers are called
	work  wait.Signal               // wakes Run

	mu   sync.Mutex
	lost map[neon.TenantID]lostCall // the last one of each record
}

// lostCall is a call without an answer.
type lostCall struct {
	began       uint64 // the record
	node        neon.NodeID
	incarnation uint64
	at          time.Time
	times       int // for this record
	err         error
}

// New makes a Travels. Run ends what requests and earlier leaders have left.
func New(log decide.Log, r Reality, pageservers fanout.Caller, logger *slog.Logger) *Travels {
	return &Travels{
		log: log, reality: r, pageservers: pageservers, logger: logger, work: wait.NewSignal(),
		lost: make(map[neon.TenantID]lostCall),
	}
}

// Travel puts the remote data of a tenant back to a moment in the past: that of all shards
// that it has had, as counts say. The tenant must not be on any pageserver, and need not
// exist. A request that is repeated takes over what was recorded before.
func (t *Travels) Travel(
	ctx context.Context, id neon.TenantID, to neon.TimeTravel, counts []neon.ShardCount,
) error {
	release, err := t.turns.Take(ctx, id, nil)
	if err != nil {
		return err
	}
	step := decide.NextStep(ctx)
	travel, begun, err := t.begin(ctx, step, id, to, counts)
	if err != nil || travel.Tenant != id {
		release()
		return err
	}
	work := func(ctx context.Context) error {
		defer release()
		if err := t.finish(ctx, travel, begun); err != nil {
			return err
		}
		return decide.Ended(ctx, t.log, step)
	}
	if travel.Began == 0 {
		return work(ctx) // without a record nothing would keep the tenant away meanwhile
	}
	// A call that ended with its client would be one without an answer.
	return t.term.Do(ctx, work)
}

// begin records a time travel under the name of its request. begun is false for one that
// was recorded before. The travel is zero when there is nothing to be done.
func (t *Travels) begin(
	ctx context.Context, step fsm.RequestID, id neon.TenantID, to neon.TimeTravel,
	counts []neon.ShardCount,
) (travel fsm.Travel, begun bool, err error) {
	counts = slices.Clone(counts)
	slices.Sort(counts)
	counts = slices.Compact(counts)
	c := fsm.BeginTravel{Tenant: id, To: to.To, DoneIfAfter: to.DoneIfAfter, Counts: counts}
	s, err := t.log.ReadState(ctx)
	if err != nil {
		return travel, false, err
	}
	now, known := s.Travel(id)
	if index, done := s.Done(step); done && (!known || now.Began != index) {
		// The request has begun a time travel. It was made once its record is gone, and
		// the tenant may have been attached since.
		return travel, false, nil
	}
	if err := t.refuseIfPresent(s, id); err != nil && !known {
		return travel, false, err
	}
	if fanout.AnyAvailable(s) == nil {
		return travel, false, errNoNodes
	}
	if fsm.Admit(s, c) != nil { // some member does not know of time travels yet
		return fsm.Travel{
			Tenant: id, To: to.To, DoneIfAfter: to.DoneIfAfter, Counts: counts,
		}, true, nil
	}
	// The entry is not the change, but the leader makes that whoever has asked for it. It is
	// done when the record is gone, unless it has failed.
	if !s.NamesEachChange() {
		step = fsm.RequestID{}
	}
	if _, err := t.log.Propose(ctx, step, c); err != nil {
		return travel, false, err
	}
	travel, ok := t.log.State().Travel(id)
	if !ok {
		return travel, false, errOver
	}
	return travel, !known, nil
}

var (
	errNoNodes = neon.Errorf(neon.Conflict, "Scheduling error: No pageservers found")
	errOver    = neon.Errorf(neon.Conflict, "the time travel was ended by somebody else")
)

// finish takes a recorded time travel to its end. alone says that no pageserver can be at
// it for an earlier leader. It ends also when it fails, unless a pageserver may be at it.
//
// A call without an answer holds it, whatever other pageservers would say: the one that was
// asked may go on with what the tenant writes later. After mostLost such calls it has failed.
func (t *Travels) finish(ctx context.Context, travel fsm.Travel, alone bool) error {
	last, ever := t.lastLost(travel)
	if ever && t.goesOn(last) {
		return neon.Errorf(neon.Unavailable,
			"pageserver %d may be putting tenant %s back in time, and does not answer; it is waited for for %s, unless it is restarted",
			last.node, travel.Tenant, callTime)
	}
	asked, err := heard, last.err
	if last.times < mostLost {
		asked, err = t.putBack(ctx, travel)
	}
	switch {
	case travel.Began == 0, errors.Is(err, errOver):
		return err
	case err != nil && (asked == lost || asked == nobody && !alone):
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	c := fsm.EndTravel{Tenant: travel.Tenant, Began: travel.Began, Failed: err != nil}
	if _, eerr := t.log.Propose(ctx, fsm.RequestID{}, c); eerr != nil && err == nil {
		return eerr
	}
	return err
}

// lastLost is the last call for a record that has got no answer.
func (t *Travels) lastLost(travel fsm.Travel) (lostCall, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last, ok := t.lost[travel.Tenant]
	if last.began != travel.Began {
		delete(t.lost, travel.Tenant)
		return lostCall{}, false
	}
	return last, ok
}

// lose notes a call without an answer.
func (t *Travels) lose(travel fsm.Travel, node *fsm.Node, err error) {
	if travel.Began == 0 {
		return
	}
	last, _ := t.lastLost(travel)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost[travel.Tenant] = lostCall{
		began: travel.Began, node: node.ID, incarnation: node.Incarnation, at: time.Now(),
		times: last.times + 1, err: err,
	}
}

// goesOn reports whether the pageserver of a lost call may be at it still. A process that
// was replaced is not. A node that was deleted may have one.
func (t *Travels) goesOn(last lostCall) bool {
	n, ok := t.log.State().Node(last.node)
	replaced := ok && n.Incarnation != last.incarnation
	return !replaced && time.Since(last.at) < callTime
}

// asked is what has come of the calls of one pass.
type asked uint8

const (
	nobody asked = iota // was asked
	heard               // from all that were asked
	lost                // one has not answered, and may go on
)

// putBack asks for each shard in turn. The check that the tenant is nowhere catches also
// what appears late.
func (t *Travels) putBack(ctx context.Context, travel fsm.Travel) (asked, error) {
	came := nobody
	s := t.log.State()
	if tenant, ok := s.Tenant(travel.Tenant); ok {
		err := decide.Await(ctx, t.reality, s.Index, tenant.Shards()...)
		if err != nil {
			return came, err
		}
	}
	to := neon.TravelRemoteStorage(neon.TimeTravel{To: travel.To, DoneIfAfter: travel.DoneIfAfter})
	var node *fsm.Node
	for _, count := range travel.Counts {
		for _, shard := range neon.ShardIDs(travel.Tenant, count) {
			s, err := t.log.ReadState(ctx)
			if err != nil {
				return came, err
			}
			if now, ok := s.Travel(travel.Tenant); travel.Began != 0 &&
				(!ok || now.Began != travel.Began) {
				return came, errOver
			}
			if err := t.refuseUnlessAbsent(s, travel.Tenant); err != nil {
				return came, err
			}
			if node == nil {
				node = fanout.AnyAvailable(s, t.reality.Silent()...)
			}
			if node == nil {
				return came, errNoNodes
			}
			decide.Acted(ctx)
			_, _, err = t.pageservers.Call(ctx, node, shard, to)
			status := fanout.StatusOf(err)
			if err != nil {
				err = neon.Errorf(neon.Internal,
					"Error doing time travel recovery for shard %s on node %d (%s): %w",
					shard, node.ID, node.Addr.HTTPHost, err)
			}
			switch {
			case err == nil, status != 0:
				came = heard
			case !notSent(err):
				came = lost
				t.lose(travel, node, err)
			}
			if err != nil {
				return came, err
			}
		}
	}
	return heard, nil
}

// notSent reports whether a request has certainly not arrived.
func notSent(err error) bool {
	var e interface{ NotSent() bool }
	return errors.As(err, &e) && e.NotSent()
}

// refuseIfPresent returns an error when a tenant is, or should be, on a pageserver.
func (t *Travels) refuseIfPresent(s *fsm.State, id neon.TenantID) error {
	tenant, ok := s.Tenant(id)
	if ok && tenant.Policy.Kind != neon.PlaceDetached {
		return neon.Errorf(neon.Internal,
			"We want tenant to be attached in shard with tenant_shard_id=%s", tenant.Shards()[0])
	}
	for sh := range s.TenantShards(id) {
		for node, conf := range t.reality.Status(sh.ID).Observed {
			if conf != nil && conf.Mode != neon.Detached {
				return neon.Errorf(neon.Internal,
					"We observed attached=%s tenant in node_id=%d shard with tenant_shard_id=%s",
					conf.Mode, node, sh.ID)
			}
		}
	}
	return nil
}

// refuseUnlessAbsent is refuseIfPresent that also refuses what is not known.
func (t *Travels) refuseUnlessAbsent(s *fsm.State, id neon.TenantID) error {
	for sh := range s.TenantShards(id) {
		for node, conf := range t.reality.Status(sh.ID).Observed {
			if conf == nil {
				return neon.Errorf(neon.Internal,
					"It is not known whether node_id=%d has shard with tenant_shard_id=%s", node,
					sh.ID)
			}
		}
	}
	return t.refuseIfPresent(s, id)
}

// Changed is to be called after each batch of applied entries, on the applying
// goroutine; it returns at once.
func (t *Travels) Changed(s *fsm.State, _ fsm.Touched) {
	if s.Travelling() {
		t.work.Set()
	}
}

// Run ends the time travels that earlier leaders and requests have left, for as long as
// this replica leads. It returns when ctx ends.
func (t *Travels) Run(ctx context.Context) {
	defer t.term.Begin(ctx)()
	var ending duty.Keyed[neon.TenantID]
	defer ending.Wait()
	for {
		for travel := range t.log.State().Travels() {
			ending.Start(travel.Tenant, func() { t.drive(ctx, travel) }, t.work.Set)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.work:
		}
	}
}

// drive works on a record until it is gone. A request that has recorded it has the turn.
func (t *Travels) drive(ctx context.Context, travel fsm.Travel) {
	taken := time.Now()
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		gone, err := t.resume(ctx, travel, time.Since(taken) > callTime)
		if gone {
			return
		}
		if err != nil && ctx.Err() == nil {
			t.logger.Info("A time travel has not ended yet", "tenant", travel.Tenant.String(),
				"err", err)
		}
		if wait.Sleep(ctx, pause) != nil {
			return
		}
	}
}

// resume carries a time travel on. gone says that it has ended.
func (t *Travels) resume(
	ctx context.Context, travel fsm.Travel, alone bool,
) (gone bool, err error) {
	release, err := t.turns.Take(ctx, travel.Tenant, nil)
	if err != nil {
		return false, err
	}
	defer release()
	s, err := t.log.ReadState(ctx)
	if err != nil {
		return false, err
	}
	if now, ok := s.Travel(travel.Tenant); !ok || now.Began != travel.Began {
		return true, nil
	}
	if err := t.finish(ctx, travel, alone); err != nil {
		return false, err
	}
	t.logger.Info("Ended a time travel", "tenant", travel.Tenant.String())
	return true, nil
}
