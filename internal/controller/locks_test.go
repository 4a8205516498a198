package controller

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
)

func TestLongWaitsAndHoldsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := NewLocks(slog.New(slog.NewTextHandler(&out, nil)))
		id, other := neon.TenantID{1}, neon.TenantID{2}
		policy, err := l.acquire(t.Context(), id, exclusive("UpdatePolicy"))
		if err != nil {
			t.Fatal(err)
		}
		free, err := l.acquire(t.Context(), other, shared("TimelineCreate"))
		if err != nil {
			t.Fatal(err)
		}
		free()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.acquire(ctx, id, shared("TimelineCreate")); err == nil {
			t.Fatal("a lock was shared with an exclusive holder")
		}
		time.AfterFunc(34*time.Second, policy)
		create, err := l.acquire(t.Context(), id, shared("TimelineCreate"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := l.acquire(t.Context(), id, shared("TimelineCreate"))
		if err != nil {
			t.Fatal(err)
		}
		again()
		time.Sleep(31 * time.Second)
		create()
		for _, want := range []string{
			"Exclusive lock by UpdatePolicy was held for 35s",
			"Operation TimelineCreate on key " + id.String() + " has waited 34s for shared lock",
			"Shared lock by TimelineCreate was held for 31s",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
		if n := strings.Count(out.String(), "\n"); n != 3 || len(l.held) != 0 {
			t.Errorf("%d lines, %d locks left:\n%s", n, len(l.held), &out)
		}
	})
}
