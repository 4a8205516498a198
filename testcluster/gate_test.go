package testcluster

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/clustertest"
)

// echoing starts a host that answers what it is sent, and connects through a gate.
func echoing(t *testing.T) (*gate, net.Conn) {
	t.Helper()
	memory := clustertest.NewNetwork()
	l, err := memory.Host("b").Listen("b:1")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}()
	g := newGate(memory.Host("a"))
	c, err := g.Dial(t.Context(), "b:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = l.Close() })
	return g, c
}

func exchange1(c net.Conn) error {
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func TestBlockedTrafficWaitsAndArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, c := echoing(t)
		if err := exchange1(c); err != nil {
			t.Fatal(err)
		}
		g.block("b:1")
		time.AfterFunc(time.Minute, func() { g.block() })
		began := time.Now()
		if err := exchange1(c); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %s, not a minute", took)
		}
	})
}

func TestDeadlineEndsAWaitBehindTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, c := echoing(t)
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		g.pause()
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read says %v", err)
		}
		g.resume()
		_ = c.SetReadDeadline(time.Time{})
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("what was held back is lost: %v", err)
		}
	})
}

func TestKilledGateBreaksAndRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, c := echoing(t)
		own, err := g.Listen("a:1")
		if err != nil {
			t.Fatal(err)
		}
		g.kill()
		if err := exchange1(c); err == nil {
			t.Error("the connection survived")
		}
		if _, err := own.Accept(); err == nil {
			t.Error("the listener survived")
		}
		if _, err := g.Dial(t.Context(), "b:1"); err == nil {
			t.Error("the dead dial")
		}
		g.revive()
		if again, err := g.Listen("a:1"); err != nil {
			t.Error(err)
		} else {
			_ = again.Close()
		}
	})
}

func TestFrozenDialGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := echoing(t)
		g.pause()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Dial(ctx, "b:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial says %v", err)
		}
	})
}
