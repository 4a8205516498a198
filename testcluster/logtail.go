package testcluster

import (
	"bytes"
	"os"
	"sync"
)

// tailSize is how much of each log is kept in memory for the dump of a failure.
const tailSize = 256 << 10

// logTail keeps the end of a log in memory and, when it has a file, all of it
// there.
type logTail struct {
	mu   sync.Mutex
	tail []byte
	file string
	out  *os.File
}

func newLogTail(file string) *logTail { return &logTail{file: file} }

func (l *logTail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != "" && l.out == nil {
		l.out, _ = os.OpenFile(l.file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	}
	if l.out != nil {
		_, _ = l.out.Write(b)
	}
	l.tail = append(l.tail, b...)
	if len(l.tail) > 2*tailSize {
		l.tail = bytes.Clone(l.tail[len(l.tail)-tailSize:])
	}
	return len(b), nil
}

func (l *logTail) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.tail)
}

// readTail reads the end of a file.
func readTail(file string) []byte {
	b, err := os.ReadFile(file)
	if err != nil {
		return []byte(err.Error())
	}
	return b[max(0, len(b)-tailSize):]
}
