package tracelog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reader is the other end of a log. It reads only as much as it is let.
type reader struct {
	mu   sync.Mutex
	text bytes.Buffer
	hang chan struct{} // closed: it reads; nil too
	err  error
	took int // of each call, when err is set
	most int // the longest call
}

func (r *reader) Write(b []byte) (int, error) {
	if r.hang != nil {
		<-r.hang
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most = max(r.most, len(b))
	if r.err != nil {
		r.text.Write(b[:r.took])
		return r.took, r.err
	}
	return r.text.Write(b)
}

func (r *reader) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *reader) fail(took int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took, r.err = took, err
}

// TestLinesAreWrittenByteForByteInTheirOrder: and as many at once as a pipe keeps
// together, unless one is longer.
func TestLinesAreWrittenByteForByteInTheirOrder(t *testing.T) {
	out := &reader{}
	q := NewQueue(out, QueueSize)
	var want strings.Builder
	for i := range 1000 {
		line := fmt.Sprintf("%d %s\n", i, strings.Repeat("x", i%300))
		want.WriteString(line)
		if n, err := q.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	if !q.Flush(time.Minute) || out.String() != want.String() || out.most > atOnce {
		t.Errorf("flushed, and at most %d at once:\n%s", out.most, out.String())
	}
	long := strings.Repeat("y", 2*atOnce) + "\n"
	_, _ = q.Write([]byte(long))
	if !q.Close(time.Minute) || out.String() != want.String()+long || q.Lost() != 0 {
		t.Errorf("lost %d", q.Lost())
	}
	_, _ = q.Write([]byte("late\n"))
	if strings.Contains(out.String(), "late") || q.Lost() != 1 {
		t.Error("a line was written after the end")
	}
}

var missing = regexp.MustCompile(
	`(?m)^\S+Z  WARN lines of this log are missing here: .* lines=(\d+)$`)

// TestAReaderThatHangsHoldsNobodyUp: a caller that logs goes on at once, the memory is
// bounded, and the lines that are missing are told once, where they are missing.
func TestAReaderThatHangsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{hang: make(chan struct{})}
		q := NewQueue(out, 10_000)
		log := New(q, slog.LevelInfo)
		begun := time.Now()
		for i := range 100_000 {
			log.Info("a line", "n", i)
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("the one who logs was held up for %v", took)
		}
		if q.bytes > q.size || q.Lost() < 90_000 {
			t.Errorf("%d bytes are kept and %d lines lost", q.bytes, q.Lost())
		}
		lost := q.Lost()
		if q.Flush(time.Second) || time.Since(begun) != time.Second {
			t.Errorf("waited %v for the reader", time.Since(begun))
		}
		close(out.hang)
		synctest.Wait()
		log.Info("after it")
		if !q.Close(time.Second) {
			t.Error("the reader reads and lines wait")
		}
		text := out.String()
		found := missing.FindAllStringSubmatch(text, -1)
		if len(found) != 1 || found[0][1] != fmt.Sprint(lost) {
			t.Errorf("%d lines were lost; it says %v", lost, found)
		}
		lines := strings.Split(strings.TrimSpace(text), "\n")
		for i, l := range lines[:len(lines)-2] {
			if !strings.HasSuffix(l, fmt.Sprintf("  INFO a line n=%d", i)) {
				t.Fatalf("line %d is %s", i, l)
			}
		}
		if !strings.HasSuffix(lines[len(lines)-1], "  INFO after it") {
			t.Errorf("ends with %v", lines[len(lines)-2:])
		}
	})
}

// slow takes a second for each call.
type slow struct{ out *reader }

func (s slow) Write(b []byte) (int, error) {
	time.Sleep(time.Second)
	return s.out.Write(b)
}

// TestMissingLinesAreToldTogether: a reader that is too slow is not told of each.
func TestMissingLinesAreToldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{}
		q := NewQueue(slow{out}, 20_000)
		log := New(q, slog.LevelInfo)
		for i := range 20_000 {
			log.Info("a line", "n", i)
			time.Sleep(2500 * time.Microsecond)
		}
		q.Close(time.Hour)
		told := uint64(0)
		found := missing.FindAllStringSubmatch(out.String(), -1)
		for _, f := range found {
			var n uint64
			_, _ = fmt.Sscan(f[1], &n)
			told += n
		}
		if told != q.Lost() || told == 0 || len(found) > 30 {
			t.Errorf("%d lines tell of %d of %d lost ones", len(found), told, q.Lost())
		}
		if got := strings.Count(out.String(), " a line ") + int(told); got != 20_000 {
			t.Errorf("%d lines were written or told of", got)
		}
	})
}

// TestALogThatCannotBeWrittenIsTriedWithEachLine: a full disk tears a line and loses
// some; what comes after it begins a line of its own.
func TestALogThatCannotBeWrittenIsTriedWithEachLine(t *testing.T) {
	out := &reader{}
	q := NewQueue(out, QueueSize)
	put := func(line string) {
		_, _ = q.Write([]byte(line))
		q.Flush(time.Minute)
	}
	put("one\n")
	out.fail(2, errors.New("no space left"))
	put("two\n")
	out.fail(0, errors.New("no space left"))
	put("three\n")
	put("four\n")
	out.fail(0, nil)
	put("five\n")
	q.Close(time.Minute)
	want := regexp.MustCompile(`^one\ntw\n\S+  WARN .* lines=3\nfive\n$`)
	if !want.MatchString(out.String()) || q.Lost() != 3 {
		t.Errorf("%d lost of\n%s", q.Lost(), out.String())
	}
}

// TestTheEndDoesNotWaitForAReaderThatHangs, longer than it is said.
func TestTheEndDoesNotWaitForAReaderThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{hang: make(chan struct{})}
		q := NewQueue(out, QueueSize)
		_, _ = q.Write([]byte("last\n"))
		begun := time.Now()
		if q.Close(2*time.Second) || time.Since(begun) != 2*time.Second {
			t.Errorf("waited %v", time.Since(begun))
		}
		close(out.hang)
		if !q.Close(time.Second) || out.String() != "last\n" {
			t.Errorf("got %q", out.String())
		}
	})
}
