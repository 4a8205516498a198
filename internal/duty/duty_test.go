package duty

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"quorate/internal/wait"
)

func TestRunReturnsOnlyWhenEveryDutyHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := 0
		quick := Duty{Name: "quick", Run: func(context.Context) {}}
		slow := Duty{Name: "slow", Run: func(ctx context.Context) {
			<-ctx.Done()
			_ = wait.Sleep(context.WithoutCancel(ctx), time.Minute)
			ended++
		}}
		time.AfterFunc(time.Second, cancel)
		Run(ctx, slog.New(slog.DiscardHandler), []Duty{quick, slow})
		if ended != 1 {
			t.Error("a duty goes on after its term")
		}
	})
}

func TestWorkOfOneKeyNeverRunsTwiceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k Keyed[int]
		hold := make(chan struct{})
		running, most, ended := 0, 0, 0
		work := func() {
			running++
			most = max(most, running)
			<-hold
			running--
		}
		k.Start(1, work, func() { ended++ })
		k.Start(1, func() { t.Error("a second one runs") }, func() { t.Error("it has ended") })
		other := false
		k.Start(2, func() { other = true }, func() {})
		synctest.Wait()
		if !other {
			t.Error("another key waits")
		}
		close(hold)
		k.Wait()
		k.Start(1, work, func() { ended++ }) // the first one has ended
		k.Wait()
		if most != 1 || ended != 2 {
			t.Errorf("%d at a time, %d have ended", most, ended)
		}
	})
}

// The caller looks again when work has ended, since it was not begun a second time.
func TestWorkThatWasPassedOverCanBeginWhenItIsToldOfTheEnd(t *testing.T) {
	var k Keyed[int]
	again := make(chan struct{})
	k.Start(1, func() {}, func() {
		k.Start(1, func() { close(again) }, func() {})
	})
	<-again
	k.Wait()
}

func TestOneAtATimeHasTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns Turns[int]
		release, err := turns.Take(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if free, err := turns.Take(t.Context(), 2, nil); err != nil {
			t.Errorf("another thing waits: %v", err)
		} else {
			free()
		}
		taken := 0
		for range 3 {
			go func() {
				free, err := turns.Take(t.Context(), 1, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if taken++; taken > 1 {
					t.Error("two have the turn")
				}
				time.Sleep(time.Second)
				taken--
				free()
			}()
		}
		time.Sleep(time.Minute)
		if taken != 0 {
			t.Error("the turn is taken from the one that has it")
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := turns.Take(short, 1, nil); err == nil {
			t.Error("the turn came without a release")
		}
		release()
		time.Sleep(time.Minute)
	})
}

func TestInterruptStopsOnlyAHolderThatYields(t *testing.T) {
	var turns Turns[int]
	turns.Interrupt(1) // it is not held
	stopped := false
	release, _ := turns.Take(t.Context(), 1, func() { stopped = true })
	turns.Interrupt(2)
	if stopped {
		t.Error("the holder of another turn was stopped")
	}
	turns.Interrupt(1)
	if !stopped {
		t.Error("the holder was not stopped")
	}
	release()
	release, _ = turns.Take(t.Context(), 1, nil)
	turns.Interrupt(1)
	release()
	if len(turns.holders) != 0 {
		t.Error("turns are kept that nobody has")
	}
}
