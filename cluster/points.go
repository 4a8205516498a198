package cluster

import (
	"encoding/binary"
	"slices"
	"sync"
)

// Digester is a Machine that tells a hash of its state.
type Digester interface {
	// Digest is a hash that two replicas share exactly when they applied the same
	// entries. It is called between two calls of the Machine and must be quick. Hashes
	// of two schemes are not compared: versions may compute them in different ways.
	Digest() (scheme, hash uint64)
}

const (
	// pointEvery makes two replicas have points in common also under load, when each
	// takes the entries in batches of its own.
	pointEvery = 64
	// keptPoints are some seconds of work.
	keptPoints = 1024
	// reportedPoints are told with each report.
	reportedPoints = 4

	pointSize = 16
)

// point is the hash of the state after all entries up to an index.
type point struct {
	Index uint64 `json:"index"`
	Hash  uint64 `json:"hash"`
}

// points are the newest points of this server.
type points struct {
	mu     sync.Mutex
	scheme uint64
	ring   [keptPoints]point
	added  int
	common []point // the newest at multiples of pointEvery, oldest first
}

func (p *points) add(scheme uint64, x point) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.scheme = scheme
	if p.added > 0 && p.ring[(p.added-1)%keptPoints].Index == x.Index {
		p.added-- // the state has changed without an entry
		p.common = slices.DeleteFunc(p.common, func(c point) bool { return c.Index == x.Index })
	}
	p.ring[p.added%keptPoints] = x
	p.added++
	if x.Index%pointEvery == 0 {
		p.common = append(p.common, x)
		p.common = p.common[max(0, len(p.common)-reportedPoints+1):]
	}
}

// forget makes the points of a state that was replaced void.
func (p *points) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.added, p.common = 0, nil
}

// newest are those for a report: the last one, and some that others have too.
func (p *points) newest() (scheme uint64, list []point) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.added > 0 {
		list = append(list, p.common...)
		if last := p.ring[(p.added-1)%keptPoints]; last.Index%pointEvery != 0 {
			list = append(list, last)
		}
	}
	return p.scheme, list
}

// all maps each index to its hash.
func (p *points) all() (scheme uint64, byIndex map[uint64]uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	byIndex = make(map[uint64]uint64)
	for _, x := range p.ring[:min(p.added, keptPoints)] {
		byIndex[x.Index] = x.Hash
	}
	return p.scheme, byIndex
}

// compare tells at the newest index in common with a list whether the hashes are equal.
func (p *points) compare(scheme uint64, list []point) (at uint64, equal, known bool) {
	have, mine := p.all()
	if have != scheme {
		return 0, false, false
	}
	for _, x := range list {
		if hash, ok := mine[x.Index]; ok && x.Index >= at {
			at, equal, known = x.Index, hash == x.Hash, true
		}
	}
	return at, equal, known
}

// encode is the answer to callPoints: the scheme, and each index with its hash.
func (p *points) encode() []byte {
	scheme, byIndex := p.all()
	b := binary.BigEndian.AppendUint64(nil, scheme)
	for index, hash := range byIndex {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, index), hash)
	}
	return b
}

func decodePoints(b []byte) (scheme uint64, byIndex map[uint64]uint64, err error) {
	if len(b) < 8 || (len(b)-8)%pointSize != 0 || len(b) > 8+keptPoints*pointSize {
		return 0, nil, errPeerFrame
	}
	byIndex = make(map[uint64]uint64)
	for at := 8; at < len(b); at += pointSize {
		byIndex[binary.BigEndian.Uint64(b[at:])] = binary.BigEndian.Uint64(b[at+8:])
	}
	return binary.BigEndian.Uint64(b), byIndex, nil
}
