package wait

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSleepEndsWithTimeOrContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		if err := Sleep(t.Context(), time.Minute); err != nil || time.Since(begun) != time.Minute {
			t.Errorf("slept %s, %v", time.Since(begun), err)
		}
		cause := errors.New("the term ended")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		begun = time.Now()
		if err := Sleep(ctx, time.Minute); err != cause || time.Since(begun) != time.Second {
			t.Errorf("slept %s, %v", time.Since(begun), err)
		}
	})
}

func TestSignalsAreMerged(t *testing.T) {
	s := NewSignal()
	s.Set()
	s.Set()
	<-s
	select {
	case <-s:
		t.Error("two signals")
	default:
	}
	s.Set()
	<-s
}

func TestBroadcastWakesAllOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Broadcast
		b.Notify() // without a waiter
		woken := make(chan struct{}, 2)
		for range 2 {
			changed := b.Changed()
			go func() { <-changed; woken <- struct{}{} }()
		}
		later := func() <-chan struct{} { b.Notify(); return b.Changed() }()
		<-woken
		<-woken
		select {
		case <-later:
			t.Error("a channel that was taken after the change is closed")
		default:
		}
	})
}
