package store

import "sync"

// logSize knows the sizes of the entries of the log, so that the log can be bounded in
// bytes. An entry costs it 4 bytes.
type logSize struct {
	mu    sync.Mutex
	first uint64   // the index of sizes[0]
	sizes []uint32 // of the data of each entry
	bytes int64
}

// add notes an entry that was written. It replaces what was at its index and behind it.
func (l *logSize) add(index uint64, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch end := l.first + uint64(len(l.sizes)); {
	case len(l.sizes) == 0, index < l.first, index > end:
		l.first, l.sizes, l.bytes = index, l.sizes[:0], 0
	case index < end:
		l.cut(int(index-l.first), len(l.sizes))
	}
	l.sizes = append(l.sizes, uint32(size))
	l.bytes += int64(size)
}

// remove notes that the entries from low to high are gone, from the beginning of the log
// or up to its end.
func (l *logSize) remove(low, high uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sizes) == 0 || high < l.first {
		return
	}
	from := int(max(low, l.first) - l.first)
	to := min(int(high-l.first)+1, len(l.sizes))
	if from < to {
		l.cut(from, to)
	}
}

// cut drops sizes[from:to], which is a prefix or a suffix.
func (l *logSize) cut(from, to int) {
	for _, n := range l.sizes[from:to] {
		l.bytes -= int64(n)
	}
	if from == 0 {
		l.first += uint64(to)
		l.sizes = l.sizes[to:]
	} else {
		l.sizes = l.sizes[:from]
	}
}

// LogBytes is the size of the data of all entries of the log.
func (l *logSize) LogBytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// BytesAfter is the size of the data of the entries behind an index.
func (l *logSize) BytesAfter(index uint64) (bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index++; index < l.first {
		return l.bytes
	}
	for _, n := range l.sizes[min(index-l.first, uint64(len(l.sizes))):] {
		bytes += int64(n)
	}
	return bytes
}

// NewestWithin is how many of the newest entries have at most so many bytes.
func (l *logSize) NewestWithin(bytes int64) (entries uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.sizes) - 1; i >= 0; i-- {
		if bytes -= int64(l.sizes[i]); bytes < 0 {
			break
		}
		entries++
	}
	return entries
}
