package store

import (
	"sync"

	"github.com/hashicorp/raft"
)

const (
	cachedEntries = 1024
	cachedBytes   = 32 << 20
)

// logCache keeps the newest entries that were written, for replication and apply.
// Raft's own cache bounds only the number of entries. With entries of 1 MB that could
// be gigabytes.
type logCache struct {
	mu    sync.RWMutex
	slots [cachedEntries]*raft.Log
	low   uint64 // entries below it have been dropped
	high  uint64
	bytes int
}

func (c *logCache) add(logs []*raft.Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range logs {
		slot := &c.slots[l.Index%cachedEntries]
		if *slot != nil {
			c.bytes -= len((*slot).Data)
		}
		*slot = l
		c.bytes += len(l.Data)
		c.high = l.Index
		if c.low+cachedEntries <= l.Index {
			c.low = l.Index - cachedEntries + 1
		}
	}
	for c.bytes > cachedBytes && c.low < c.high {
		slot := &c.slots[c.low%cachedEntries]
		if *slot != nil && (*slot).Index == c.low {
			c.bytes -= len((*slot).Data)
			*slot = nil
		}
		c.low++
	}
}

func (c *logCache) load(index uint64, into *raft.Log) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l := c.slots[index%cachedEntries]
	if l == nil || l.Index != index {
		return false
	}
	*into = *l
	return true
}

func (c *logCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots = [cachedEntries]*raft.Log{}
	c.low, c.high, c.bytes = 0, 0, 0
}
