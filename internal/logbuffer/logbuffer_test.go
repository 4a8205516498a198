package logbuffer

import (
	"io"
	"strings"
	"sync"
	"testing"
)

// TestTextIsReadWhileItIsWritten: the race detector looks on.
func TestTextIsReadWhileItIsWritten(t *testing.T) {
	var b Buffer
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, _ = io.WriteString(&b, "line\n")
			if !strings.HasPrefix(b.String(), "line\n") {
				t.Errorf("after a line: %q", b.String())
			}
		})
	}
	wg.Wait()
	if b.String() != strings.Repeat("line\n", 8) {
		t.Errorf("%q", b.String())
	}
}
