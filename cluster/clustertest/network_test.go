package clustertest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// TestConnectionsBehaveAsGoExpects runs the checks that every net.Conn must pass.
func TestConnectionsBehaveAsGoExpects(t *testing.T) {
	nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
		n := NewNetwork()
		l, err := n.Host("a").Listen("a:1")
		if err != nil {
			return nil, nil, nil, err
		}
		accepted := make(chan net.Conn, 1)
		go func() {
			c, _ := l.Accept()
			accepted <- c
		}()
		if a, err = n.Host("b").Dial(t.Context(), "a:1"); err != nil {
			return nil, nil, nil, err
		}
		b = <-accepted
		return a, b, func() { _, _, _ = a.Close(), b.Close(), l.Close() }, nil
	})
}

func TestNetworkHoldsBytesAcrossAPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		l, err := n.Host("a").Listen("a:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Host("a").Listen("a:1"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listened twice: %v", err)
		}
		accepted := make(chan io.ReadWriteCloser, 1)
		go func() {
			c, _ := l.Accept()
			accepted <- c
		}()
		ours, err := n.Host("b").Dial(context.Background(), "a:1")
		if err != nil {
			t.Fatal(err)
		}
		theirs := <-accepted
		n.Partition([]string{"a"})
		if _, err := ours.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_ = ours.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := n.Host("b").Dial(ctx, "a:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dialed across: %v", err)
		}
		n.Heal()
		if _, err := io.ReadFull(theirs, make([]byte, 1)); err != nil {
			t.Errorf("the byte is lost: %v", err)
		}
		n.Kill("a")
		_ = ours.SetReadDeadline(time.Time{})
		if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v", err)
		}
		if _, err := n.Host("b").Dial(context.Background(),
			"a:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v", err)
		}
		_ = ours.Close()
	})
}
