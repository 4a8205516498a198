package failpoint

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPauseHoldsUntilTheActionsAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := New(slog.New(slog.NewTextHandler(&log, nil)), nil)
		pass := func(ctx context.Context) <-chan error {
			done := make(chan error, 1)
			go func() { done <- r.Pausable(ctx, "p") }()
			synctest.Wait()
			return done
		}
		if err := <-pass(t.Context()); err != nil {
			t.Error(err)
		}
		configure(t, r, "p", "pause")
		held := pass(t.Context())
		ctx, cancel := context.WithCancel(t.Context())
		given := pass(ctx)
		cancel()
		if err := <-given; err == nil {
			t.Error("the end of the context did not end the wait")
		}
		select {
		case <-held:
			t.Fatal("passed a point that pauses")
		default:
		}
		configure(t, r, "p", "off")
		if err := <-held; err != nil {
			t.Error(err)
		}
		if err := <-pass(t.Context()); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "at failpoint p"); n != 4 {
			t.Errorf("passed %d times\n%s", n, log.String())
		}
	})
}

func TestReturnedMillisecondsAreSlept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := New(slog.New(slog.NewTextHandler(&log, nil)), nil)
		configure(t, r, "s", "return(250)")
		configure(t, r, "d", "sleep(40)")
		begun := time.Now()
		if err := r.Sleep(t.Context(), "s"); err != nil {
			t.Error(err)
		}
		if err := r.Pausable(t.Context(), "d"); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != 290*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if !strings.Contains(log.String(), `failpoint \"s\": sleeping for 250ms`) {
			t.Error(log.String())
		}
		configure(t, r, "s", "return(soon)")
		if err := r.Sleep(t.Context(), "s"); err == nil {
			t.Error("slept for no time that can be told")
		}
	})
}

func TestActionsAreTakenInTurn(t *testing.T) {
	var ended []string
	r := New(slog.New(slog.DiscardHandler), func(why string) { ended = append(ended, why) })
	configure(t, r, "x", "2*return(a)->1*off->0%return(never)->return(b)")
	var got []string
	for range 5 {
		arg, hit, err := r.Return(t.Context(), "x")
		if err != nil || hit != (arg != "") {
			t.Error(arg, hit, err)
		}
		got = append(got, arg)
	}
	if have := strings.Join(got, ","); have != "a,a,,b,b" {
		t.Error(have)
	}
	configure(t, r, "x", "panic(failpoint)")
	_, _, _ = r.Return(t.Context(), "x")
	configure(t, r, "x", "exit")
	_, _, _ = r.Return(t.Context(), "x")
	if len(ended) != 2 || ended[0] != "failpoint x" {
		t.Errorf("ended %q", ended)
	}
}

func TestWithoutARegistryThereAreNoPoints(t *testing.T) {
	var r *Registry
	arg, hit, err := r.Return(t.Context(), "x")
	if hit || arg != "" || err != nil || r.Sleep(t.Context(), "x") != nil ||
		r.Pausable(t.Context(), "x") != nil {
		t.Error("a point that does not exist did something")
	}
}

func TestMalformedActionsChangeNothing(t *testing.T) {
	r := New(slog.New(slog.DiscardHandler), nil)
	configure(t, r, "x", "return(1)")
	for _, bad := range []string{
		"", "nothing", "sleep", "sleep(x)", "pause(", "101%off", "x%off", "-1*off", "off->",
		"NaN%off",
	} {
		if err := r.Configure("x", bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if !r.Armed("x") || r.Armed("y") {
		t.Error("armed are others than those with actions")
	}
	if arg, hit, _ := r.Return(t.Context(), "x"); !hit || arg != "1" {
		t.Error("the actions were lost")
	}
}

func configure(t *testing.T, r *Registry, name, actions string) {
	t.Helper()
	if err := r.Configure(name, actions); err != nil {
		t.Fatal(err)
	}
}

func FuzzActions(f *testing.F) {
	for _, s := range []string{
		"off", "50%3*return(x)->pause", "sleep(10)", "((", "%*", "1e300%off",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parse(text)
		if err == nil && len(list) == 0 {
			t.Error("no action and no error")
		}
		for _, a := range list {
			if a.percent < 0 || a.percent > 100 || a.left < -1 {
				t.Errorf("%q is read as %+v", text, a)
			}
		}
	})
}
