package store

import (
	"bytes"
	"testing"
)

func FuzzBoltCheck(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0xed}, 9000))
	f.Fuzz(func(_ *testing.T, b []byte) {
		w := &boltWalk{
			file: bytes.NewReader(b), seen: make(map[uint64]bool), pageSize: 4096, pages: 8,
		}
		_ = w.content(b, 0)
		_ = w.readMeta()
	})
}
