package cluster

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A peer that does not read its answers is given up, and who has something to send to it
// is not held up for longer.
func TestAPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer func() { _ = theirs.Close() }()
		out := newOutbox()
		var wg sync.WaitGroup
		wg.Go(func() { out.run(ours) })
		begun := time.Now()
		if err := out.send(context.Background(), peerFrame{kind: answerOK}); err != nil {
			t.Fatal(err)
		}
		// The end of the connection shows to whoever reads from it.
		if _, err := ours.Read(make([]byte, 1)); err == nil {
			t.Error("something was read")
		}
		if took := time.Since(begun); took != peerWriteTime {
			t.Errorf("given up after %s", took)
		}
		close(out.done)
		wg.Wait()
	})
}
