// Package logbuffer keeps a log in memory for tests, which read it while it is written.
package logbuffer

import (
	"bytes"
	"sync"
)

// Buffer is an io.Writer whose text can be read at any time.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String is all that was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
