package imports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/duty"
	"quorate/internal/membership"
)

var one = neon.TimelineRef{Tenant: neon.TenantID{1}, Timeline: neon.TimelineID{2}}

// outside is what an import needs: pageservers, safekeepers and the control plane.
type outside struct {
	mu        sync.Mutex
	activated map[neon.ShardID]int
	refuse    error              // of the first activation of each shard
	during    func(neon.ShardID) // what happens before an activation is answered
	created   int
	unplaced  error // of safekeepers
	heard     []neon.ImportComplete
	deaf      error // of the control plane
}

func (o *outside) Call(
	_ context.Context, _ *fsm.Node, shard neon.ShardID, _ neon.ShardCall,
) (int, []byte, error) {
	if o.during != nil {
		o.during(shard)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.activated == nil {
		o.activated = make(map[neon.ShardID]int)
	}
	o.activated[shard]++
	if o.refuse != nil && o.activated[shard] == 1 {
		return 0, nil, o.refuse
	}
	body := fmt.Sprintf(`{"timeline_id":%q,"last_record_lsn":"0/8","pg_version":16}`,
		one.Timeline)
	return http.StatusOK, []byte(body), nil
}

func (o *outside) Create(
	_ context.Context, t membership.Timeline,
) (*neon.SafekeeperSet, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unplaced != nil {
		return nil, o.unplaced
	}
	if t.Imported && t.Writable && t.Info.LastRecordLsn == 8 {
		o.created++
	}
	return nil, nil
}

func (o *outside) ImportComplete(_ context.Context, body neon.ImportComplete) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.deaf == nil {
		o.heard = append(o.heard, body)
	}
	return o.deaf
}

func (o *outside) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

// world has an import on two shards, which Run works on.
type world struct {
	*fsmtest.Faulty
	outside  outside
	turns    duty.Turns[neon.TimelineRef]
	importer *Importer
	stop     func()
}

func newWorld(t *testing.T) *world {
	w := &world{Faulty: fsmtest.NewFaulty(t)}
	w.AddNodes(t, 2, neon.MakeAZ("a"))
	w.Must(fsm.CreateTenant{
		ID: one.Tenant, Count: 2, Stripe: 8, Policy: neon.Attached(0),
		Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}, {Attached: 2}},
	})
	w.Attach(t, one.Tenant)
	w.importer = New(Deps{
		Log: w, Pageservers: &w.outside, Safekeepers: &w.outside, Hook: &w.outside,
		Turns: &w.turns, OntoSafekeepers: true, Logger: slog.New(slog.DiscardHandler),
	})
	w.Subscribe(w.importer.Changed)
	for range 2 { // a repeated creation begins it once
		if err := w.importer.Begin(t.Context(), one); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.importer.Run(ctx); close(ended) }()
	w.stop = func() { cancel(); <-ended }
	return w
}

// report reports the end of the import on a shard.
func (w *world) report(number neon.ShardNumber, failure string) {
	id := neon.ShardID{Tenant: one.Tenant, Number: number, Count: 2}
	sh, _ := w.State().Shard(id)
	status := neon.ShardImport{State: neon.ShardImportDone}
	if failure != "" {
		status = neon.ShardImport{State: neon.ShardImportFailed, Error: failure}
	}
	w.Must(fsm.UpdateImport{
		Shard: id, Timeline: one.Timeline, Generation: sh.Generation, Status: status,
	})
}

func TestAnImportEndsOnlyWhenEveryShardHasReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.report(0, "")
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(w.outside.activated) > 0 || len(w.outside.heard) > 0 {
			t.Fatalf("%v, %v", w.outside.activated, w.outside.heard)
		}
		w.report(1, "")
		time.Sleep(time.Second)
		synctest.Wait()
		if i, _ := w.State().Import(one); !i.Finished || len(w.outside.activated) != 2 ||
			w.outside.created != 1 || len(w.outside.heard) != 1 ||
			w.outside.heard[0].Error != nil {
			t.Errorf("%+v, the control plane has heard %v", i, w.outside.heard)
		}
	})
}

func TestAnImportThatFailedOnAShardIsOnlyAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.report(0, "")
		w.report(1, "no such bucket")
		time.Sleep(time.Second)
		synctest.Wait()
		if len(w.outside.activated) > 0 || w.outside.created > 0 {
			t.Error("a timeline that is not whole was made usable")
		}
		if len(w.outside.heard) != 1 || w.outside.heard[0].Error == nil ||
			*w.outside.heard[0].Error != `{"0102":"no such bucket"}` {
			t.Errorf("the control plane has heard %v", w.outside.heard)
		}
	})
}

func TestEveryStepOfAnImportIsRepeatedUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.outside.refuse = errors.New("not yet")
		w.outside.unplaced = errors.New("no safekeepers")
		w.outside.deaf = errors.New("not now")
		w.report(0, "")
		w.report(1, "")
		time.Sleep(time.Minute)
		synctest.Wait()
		synctest.Wait()
		if len(w.outside.activated) != 2 || w.outside.created > 0 {
			t.Fatal("the timeline is not active, or on safekeepers")
		}
		w.outside.set(func() { w.outside.unplaced = nil })
		time.Sleep(2 * importPlace)
		synctest.Wait()
		synctest.Wait()
		if i, _ := w.State().Import(one); i.Finished || w.outside.created != 1 {
			t.Fatal("it is finished before the control plane has heard")
		}
		w.outside.set(func() { w.outside.deaf = nil })
		time.Sleep(2 * importNotify)
		synctest.Wait()
		synctest.Wait()
		if i, _ := w.State().Import(one); !i.Finished || len(w.outside.heard) != 1 {
			t.Errorf("%+v, %d announcements", i, len(w.outside.heard))
		}
	})
}

// A shard that gets its next generation while an owner is asked is asked again: what attached
// it has loaded the index in which the import has not ended.
func TestAnImportIsActivatedInTheNewestGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		moved := neon.ShardID{Tenant: one.Tenant, Number: 1, Count: 2}
		var once sync.Once
		w.outside.during = func(shard neon.ShardID) {
			if shard != moved {
				return
			}
			once.Do(func() {
				sh, _ := w.State().Shard(moved)
				w.Must(fsm.IssueGenerations{Items: []fsm.Issue{
					{Shard: moved, Node: sh.Attached, Generation: sh.Generation},
				}})
			})
		}
		w.report(0, "")
		w.report(1, "")
		time.Sleep(time.Minute)
		synctest.Wait()
		if i, _ := w.State().Import(one); !i.Finished || w.outside.activated[moved] != 2 {
			t.Errorf("%+v, asked %v", i, w.outside.activated)
		}
	})
}

// A deletion that has interrupted an import and has the turn knows that nothing follows.
func TestNothingIsDoneForAnImportOnceADeletionHasTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.outside.deaf = errors.New("not now")
		w.report(0, "")
		w.report(1, "")
		time.Sleep(time.Minute)
		synctest.Wait()
		w.Must(fsm.BeginDeleteTimeline{Tenant: one.Tenant, Timeline: one.Timeline})
		w.turns.Interrupt(one)
		release, err := w.turns.Take(t.Context(), one, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.outside.set(func() { w.outside.deaf = nil })
		time.Sleep(time.Hour)
		synctest.Wait()
		release()
		time.Sleep(time.Hour)
		synctest.Wait()
		synctest.Wait()
		if len(w.outside.heard) > 0 {
			t.Errorf("a deleted timeline was announced: %v", w.outside.heard)
		}
	})
}

// An import that is interrupted and goes on in the log is ended all the same.
func TestAnImportThatWasInterruptedForNothingIsDrivenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.outside.deaf = errors.New("not now")
		w.report(0, "")
		w.report(1, "")
		time.Sleep(time.Minute)
		synctest.Wait()
		w.turns.Interrupt(one)
		w.outside.set(func() { w.outside.deaf = nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if i, _ := w.State().Import(one); !i.Finished {
			t.Error("it is not finished")
		}
	})
}

func TestTheNextLeaderEndsAnImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.stop()
		w.report(0, "")
		w.report(1, "")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		w.importer.Run(ctx)
		if i, _ := w.State().Import(one); !i.Finished {
			t.Error("it is not finished")
		}
	})
}
