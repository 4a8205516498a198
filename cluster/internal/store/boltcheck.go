package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// checkBolt walks every live page of a bolt file before bolt opens it. Bolt maps the
// file into memory and trusts it. To rebuild its free list, bolt walks the tree on
// goroutines of its own, where a bad page would end the process.
//
// The layout is bolt's file format 2: two meta pages, then B+tree pages.
func checkBolt(file string) error {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 { // made, but nothing was written: bolt starts afresh
		return nil
	}
	w := &boltWalk{file: f, seen: make(map[uint64]bool)}
	if err := w.readMeta(); err != nil {
		return err
	}
	if need := w.pages * w.pageSize; uint64(info.Size()) < need {
		return fmt.Errorf("the file has %d bytes and should have %d", info.Size(), need)
	}
	return w.page(w.root, 0)
}

const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	boltPageHead   = 16 // id u64, flags u16, count u16, overflow u32
	boltElement    = 16
	boltMetaSize   = 64
	boltBranch     = 0x01
	boltLeaf       = 0x02
	boltBucketFlag = 0x01
	boltMaxDepth   = 64
)

type boltWalk struct {
	file     io.ReaderAt
	pageSize uint64
	root     uint64
	pages    uint64 // the high-water mark
	seen     map[uint64]bool
}

// readMeta reads the two meta pages, of which the newer one counts. Bolt passes over one
// that is damaged and goes on with the other, which is older by a transaction: entries and
// votes that this server has told of would be gone. A crash damages no meta page, since
// what changes of it lies within one sector. So both must be valid, except in a file that
// has just been made.
func (w *boltWalk) readMeta() error {
	newest, found := w.meta(0)
	for _, size := range []int64{1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16} {
		if found && int64(w.pageSize) != size {
			continue
		}
		first := found
		second, ok := w.meta(size)
		switch {
		case !ok && !first:
			continue
		case (!ok || !first) && max(newest, second) > 1:
			return errors.New("one of the two meta pages is damaged; it may be the newer one")
		case ok && first && newest > second:
			_, _ = w.meta(0)
		}
		found = true
		break
	}
	if !found || w.pageSize < 1024 || w.pageSize > 1<<20 || w.pages > 1<<40 {
		return errors.New("neither meta page is valid")
	}
	return nil
}

// meta takes what the meta page at an offset says, if the page is valid.
func (w *boltWalk) meta(at int64) (txid uint64, ok bool) {
	b := make([]byte, boltPageHead+boltMetaSize)
	if _, err := w.file.ReadAt(b, at); err != nil {
		return 0, false
	}
	m := b[boltPageHead:]
	sum := fnv.New64a()
	_, _ = sum.Write(m[:56])
	if binary.NativeEndian.Uint32(m) != boltMagic ||
		binary.NativeEndian.Uint32(m[4:]) != boltVersion ||
		binary.NativeEndian.Uint64(m[56:]) != sum.Sum64() {
		return 0, false
	}
	w.pageSize = uint64(binary.NativeEndian.Uint32(m[8:]))
	w.root = binary.NativeEndian.Uint64(m[16:])
	w.pages = binary.NativeEndian.Uint64(m[40:])
	return binary.NativeEndian.Uint64(m[48:]), true
}

func (w *boltWalk) page(id uint64, depth int) error {
	if id < 2 || id >= w.pages || w.seen[id] || depth > boltMaxDepth {
		return fmt.Errorf("page %d is out of place", id)
	}
	w.seen[id] = true
	head := make([]byte, boltPageHead)
	if _, err := w.file.ReadAt(head, int64(id*w.pageSize)); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head) != id || id+overflow >= w.pages {
		return fmt.Errorf("page %d has a bad header", id)
	}
	b := make([]byte, (1+overflow)*w.pageSize)
	if _, err := w.file.ReadAt(b, int64(id*w.pageSize)); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	if err := w.content(b, depth); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// content checks one page, or the page that a small bucket carries inline.
func (w *boltWalk) content(b []byte, depth int) error {
	if len(b) < boltPageHead {
		return errors.New("too short")
	}
	flags, count := binary.NativeEndian.Uint16(b[8:]), int(binary.NativeEndian.Uint16(b[10:]))
	if boltPageHead+count*boltElement > len(b) {
		return errors.New("more elements than fit")
	}
	for i := range count {
		at := uint64(boltPageHead + i*boltElement)
		e := b[at:]
		var err error
		switch flags {
		case boltBranch:
			pos, keySize := uint64(
				binary.NativeEndian.Uint32(e)), uint64(binary.NativeEndian.Uint32(e[4:]))
			if at+pos+keySize > uint64(len(b)) {
				return errors.New("a key lies outside")
			}
			err = w.page(binary.NativeEndian.Uint64(e[8:]), depth+1)
		case boltLeaf:
			pos, keySize, size := uint64(binary.NativeEndian.Uint32(e[4:])), uint64(
				binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
			if at+pos+keySize+size > uint64(len(b)) {
				return errors.New("a value lies outside")
			}
			if binary.NativeEndian.Uint32(e)&boltBucketFlag != 0 {
				err = w.bucket(b[at+pos+keySize:at+pos+keySize+size], depth)
			}
		default:
			return fmt.Errorf("has type %#x", flags)
		}
		if err != nil {
			return err
		}
	}
	if flags != boltBranch && flags != boltLeaf {
		return fmt.Errorf("has type %#x", flags)
	}
	return nil
}

func (w *boltWalk) bucket(value []byte, depth int) error {
	if len(value) < 16 {
		return errors.New("a bucket is too short")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.page(root, depth+1)
	}
	return w.content(value[16:], depth+1)
}
