package bodypool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"quorate/api/neon"
)

var limits = Limits{
	Bytes: 1 << 20, PerClient: 1 << 19, Idle: 10 * time.Second, Whole: 30 * time.Second,
	Room: 5 * time.Second,
}

func read(p *Pool, c Client, size, limit int64, from io.Reader) ([]byte, func(), error) {
	return p.Read(context.Background(), Body{
		From: from, Size: size, Limit: limit, Client: c,
		SetReadDeadline: func(time.Time) error { return errors.ErrUnsupported },
	})
}

func TestBodiesAreReadWhole(t *testing.T) {
	p := New(limits)
	for _, n := range []int{
		1, firstBytes - 1, firstBytes, firstBytes + 1, growth*firstBytes - 1, growth * firstBytes,
		growth*firstBytes + 1, 100_000,
	} {
		want := bytes.Repeat([]byte("0123456789"), n/10+1)[:n]
		for _, size := range []int64{-1, int64(n)} {
			for _, from := range []io.Reader{
				bytes.NewReader(want), iotest.HalfReader(bytes.NewReader(want)),
				iotest.DataErrReader(bytes.NewReader(want)),
			} {
				got, release, err := read(p, "a", size, int64(n), from)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes of %d: %d, %v", n, size, len(got), err)
				}
				release()
			}
			_, _, err := read(p, "a", size, int64(n)-1, bytes.NewReader(want))
			if neon.Classify(err) != neon.BadRequest {
				t.Errorf("%d bytes, one too many: %v", n, err)
			}
			_, _, err = read(p, "a", size, int64(n), iotest.TimeoutReader(
				iotest.OneByteReader(bytes.NewReader(want))))
			if n > 1 && neon.Classify(err) != neon.BadRequest {
				t.Errorf("%d bytes, cut: %v", n, err)
			}
		}
	}
	_, _, err := read(p, "a", 10, 10, strings.NewReader("short"))
	if !errors.Is(err, io.ErrUnexpectedEOF) || neon.Classify(err) != neon.BadRequest {
		t.Errorf("a short body: %v", err)
	}
	if p.Taken() != 0 {
		t.Errorf("%d bytes are left", p.Taken())
	}
}

// TestIdleBodiesTakeNoRoom has many bodies that say that they are large.
func TestIdleBodiesTakeNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(limits)
		failed := make(chan error)
		for range 500 {
			ours, theirs := net.Pipe()
			t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
			go func() {
				_, _, err := p.Read(context.Background(), Body{
					From: theirs, Size: 1 << 19, Limit: 1 << 19, Client: "idle",
					SetReadDeadline: theirs.SetReadDeadline,
				})
				failed <- err
			}()
		}
		synctest.Wait()
		began := time.Now()
		data := bytes.Repeat([]byte("x"), 1<<19)
		got, release, err := read(p, "idle", -1, 1<<19-1, bytes.NewReader(data[1:]))
		if err != nil || len(got) != 1<<19-1 || time.Since(began) != 0 {
			t.Fatalf("%d bytes, %v, after %s", len(got), err, time.Since(began))
		}
		release()
		for range 500 {
			if err := <-failed; neon.Classify(err) != neon.Timeout ||
				!strings.Contains(err.Error(), "nothing came of the request body for 10s") {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != limits.Idle {
			t.Errorf("given up after %s", took)
		}
	})
}

// TestABodyThatDripsIsGivenUp has a byte come now and then.
func TestABodyThatDripsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(limits)
		ours, theirs := net.Pipe()
		var drips sync.WaitGroup
		drips.Go(func() {
			for {
				if _, err := ours.Write([]byte{1}); err != nil {
					return
				}
				time.Sleep(9 * time.Second)
			}
		})
		began := time.Now()
		_, _, err := p.Read(context.Background(), Body{
			From: theirs, Size: -1, Limit: 1 << 10, Client: "slow",
			SetReadDeadline: theirs.SetReadDeadline,
		})
		if neon.Classify(err) != neon.Timeout || time.Since(began) != limits.Whole {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		_, _ = ours.Close(), theirs.Close()
		drips.Wait()
	})
}

// TestAClientHasItsPart has one client take all it can get.
func TestAClientHasItsPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(limits)
		data := bytes.Repeat([]byte("x"), 1<<18)
		take := func(c Client) (func(), error) {
			_, release, err := read(p, c, 1<<18, 1<<18, bytes.NewReader(data))
			return release, err
		}
		var held []func()
		for {
			release, err := take("greedy")
			if err != nil {
				if neon.Classify(err) != neon.Unavailable {
					t.Error(err)
				}
				break
			}
			held = append(held, release)
		}
		if len(held) != 2 || p.Taken() > limits.PerClient {
			t.Errorf("%d bodies of %d bytes", len(held), p.Taken())
		}
		release, err := take("other")
		if err != nil {
			t.Fatal(err)
		}
		release()
		waits := make(chan error)
		go func() {
			release, err := take("greedy")
			if err == nil {
				release()
			}
			waits <- err
		}()
		time.Sleep(limits.Room / 2)
		held[0]()
		if err := <-waits; err != nil {
			t.Errorf("a body that waited for room: %v", err)
		}
		held[1]()
		if p.Taken() != 0 || len(p.clients) != 0 {
			t.Errorf("%d bytes, %v are left", p.Taken(), p.clients)
		}
	})
}

// TestAllBodiesTogetherAreBounded has more clients than there is room for.
func TestAllBodiesTogetherAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(limits)
		done := make(chan error)
		most := int64(0)
		for i := range 200 {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			go func() {
				n := r.Int64N(1 << 18)
				_, release, err := read(p, Client(rune('a'+i%20)), n, 1<<18,
					bytes.NewReader(make([]byte, n)))
				if err == nil {
					time.Sleep(time.Second)
					release()
				}
				done <- err
			}()
		}
		refused := 0
		for range 200 {
			if err := <-done; neon.Classify(err) == neon.Unavailable {
				refused++
			} else if err != nil {
				t.Error(err)
			}
			most = max(most, p.Taken())
		}
		if most > limits.Bytes || refused == 200 || p.Taken() != 0 {
			t.Errorf("%d bytes at most, %d refused, %d left", most, refused, p.Taken())
		}
	})
}
