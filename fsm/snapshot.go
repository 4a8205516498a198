package fsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"

	"quorate/api/neon"
)

// A snapshot is `QUORATE`, a format byte, and one zstd frame, whose checksum covers
// all of its content. The content is a CBOR header with the counts and then, each in
// order and as fixed binary: the tenants, the shards, the remembered requests, the
// tombstones of tenants, the timelines, the operations that safekeepers owe, the
// imports, the deletions and the outcomes of operations. The index from nodes to shards
// is rebuilt on reading.
const (
	snapshotMagic  = "QUORATE"
	snapshotFormat = 1
)

var errRepeat = errors.New("records repeat")

// ErrBadSnapshot is met when a snapshot is not one, is damaged or is cut short.
var ErrBadSnapshot = errors.New("snapshot is damaged")

type snapshotHeader struct {
	Index            uint64 `cbor:"1,keyasint"`
	ClusterID        string `cbor:"2,keyasint"`
	Epoch            uint64 `cbor:"3,keyasint"`
	Leader           Leader `cbor:"4,keyasint"`
	Nodes            []Node `cbor:"5,keyasint"`
	Tenants          int    `cbor:"6,keyasint"`
	Shards           int    `cbor:"7,keyasint"`
	Requests         int    `cbor:"8,keyasint"`
	TenantTombstones int    `cbor:"9,keyasint"`
	Level            uint64 `cbor:"10,keyasint,omitempty"`

	Splits      []Split      `cbor:"30,keyasint,omitempty"`
	Safekeepers []Safekeeper `cbor:"20,keyasint,omitempty"`
	Timelines   int          `cbor:"21,keyasint,omitempty"`
	Ops         int          `cbor:"22,keyasint,omitempty"`

	Imports int `cbor:"60,keyasint,omitempty"`
	Deletes int `cbor:"61,keyasint,omitempty"`

	Outcomes int `cbor:"62,keyasint,omitempty"`

	Travels []Travel `cbor:"63,keyasint,omitempty"`
}

// SnapshotWriter writes one State; it may run while newer states are made.
type SnapshotWriter struct{ State *State }

// WriteTo writes the whole snapshot.
func (w SnapshotWriter) WriteTo(out io.Writer) (int64, error) {
	count := &countingWriter{w: out}
	if _, err := count.Write(append([]byte(snapshotMagic), snapshotFormat)); err != nil {
		return count.n, err
	}
	z, err := zstd.NewWriter(count, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		return count.n, err
	}
	if err := w.State.encode(bufio.NewWriterSize(z, 1<<16)); err != nil {
		return count.n, errors.Join(err, z.Close())
	}
	return count.n, z.Close()
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (s *State) encode(w *bufio.Writer) (err error) {
	var splits []Split
	s.splits.Scan(func(sp Split) bool { splits = append(splits, sp); return true })
	head, err := cbor.Marshal(snapshotHeader{
		Index: s.Index, ClusterID: s.ClusterID, Epoch: s.Epoch, Leader: s.Leader, Level: s.level,
		Nodes:   s.nodes,
		Tenants: s.tenants.Len(), Shards: s.shards.Len(), Requests: s.done.byAge.Len(),
		TenantTombstones: s.deletedTenants.byAge.Len(),
		Safekeepers:      s.safekeepers, Timelines: s.timelines.Len(), Ops: s.ops.Len(),
		Imports: s.imports.Len(), Deletes: s.deletes.Len(),
		Splits: splits, Outcomes: s.outcomes.byAge.Len(), Travels: slices.Collect(s.Travels()),
	})
	if err != nil {
		return err
	}
	b := appendBytes(nil, head)
	put := func() bool {
		_, err = w.Write(b)
		b = b[:0]
		return err == nil
	}
	put()
	s.tenants.Scan(func(t Tenant) bool { b = appendTenant(b, &t); return put() })
	s.shards.Scan(func(sh Shard) bool { b = appendShard(b, &sh); return put() })
	s.done.values(func(q request) bool {
		b = appendRequest(b, q)
		return put()
	})
	s.deletedTenants.values(func(g tenantTombstone) bool {
		b = appendTombstone(b, g)
		return put()
	})
	s.timelines.Scan(func(t Timeline) bool { b = appendTimeline(b, &t); return put() })
	s.ops.Scan(func(o SafekeeperOp) bool { b = appendOp(b, &o); return put() })
	s.imports.Scan(func(i Import) bool { b = appendImport(b, &i); return put() })
	s.deletes.Scan(func(t TimelineDelete) bool { b = appendTimelineDelete(b, &t); return put() })
	s.outcomes.values(func(o Outcome) bool { b = appendOutcome(b, o); return put() })
	if err != nil {
		return err
	}
	return w.Flush()
}

func appendBytes[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendRequest(b []byte, q request) []byte {
	b = binary.AppendUvarint(append(b, q.id[:]...), uint64(q.kind))
	return binary.AppendUvarint(b, q.index)
}

func appendTombstone(b []byte, g tenantTombstone) []byte {
	return binary.AppendUvarint(append(b, g.tenant[:]...), uint64(g.generation))
}

func appendTenant(b []byte, t *Tenant) []byte {
	b = append(b, t.ID[:]...)
	b = append(b, byte(t.Count), byte(t.Policy.Kind), boolByte(t.Deleting)|
		boolByte(t.Remover.Node != 0)<<1|boolByte(t.TimelineDeleted != 0)<<2)
	b = binary.AppendUvarint(b, uint64(t.Stripe))
	b = binary.AppendUvarint(b, uint64(t.Policy.Secondaries))
	b = binary.AppendUvarint(b, t.Sequence)
	b = appendBytes(b, string(t.Scheduling))
	config, _ := t.Config.MarshalBinary()
	b = appendBytes(b, config)
	if t.Remover.Node != 0 { // not in the first level, whose records end here
		b = binary.AppendUvarint(b, uint64(t.Remover.Node))
		b = binary.AppendUvarint(b, t.Remover.Incarnation)
	}
	if t.TimelineDeleted != 0 {
		b = binary.AppendUvarint(b, t.TimelineDeleted)
	}
	return b
}

func appendShard(b []byte, s *Shard) []byte {
	b, _ = s.ID.AppendBinary(b)
	b = append(b, boolByte(
		s.HasGeneration)|boolByte(s.ComputeAcknowledged)<<1|boolByte(s.Unmanaged)<<2|boolByte(
		s.Unhealthy)<<3|boolByte(s.PriorNode != 0)<<4|boolByte(s.Insisted)<<5|boolByte(
		s.PlacedOn != 0)<<6)
	b = binary.AppendUvarint(b, uint64(s.Generation))
	b = binary.AppendUvarint(b, uint64(s.AcknowledgedNode))
	b = binary.AppendUvarint(b, uint64(s.GenNode))
	b = binary.AppendUvarint(b, uint64(s.Attached))
	b = binary.AppendUvarint(b, uint64(s.PreferredNode))
	b = binary.AppendUvarint(b, s.Sequence)
	b = binary.AppendUvarint(b, uint64(s.ScrubbedAt))
	b = binary.AppendUvarint(b, uint64(len(s.Secondary)))
	for _, n := range s.Secondary {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = appendBytes(b, s.PreferredAZ.String())
	if s.PriorNode != 0 { // not in the first level, whose records end here
		b = binary.AppendUvarint(b, uint64(s.PriorNode))
	}
	if s.PlacedOn != 0 {
		b = binary.AppendUvarint(b, uint64(s.PlacedOn))
		b = binary.AppendUvarint(b, uint64(s.PlacedAt))
	}
	return b
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// ReadSnapshot reads a whole snapshot and checks it: the checksum, the counts
// and every invariant of records that Check knows. All else is made anew of them.
// The errors are ErrBadSnapshot and ErrNewerState.
func ReadSnapshot(r io.Reader) (*State, error) {
	var magic [len(snapshotMagic) + 1]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil ||
		string(magic[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: it does not begin as one", ErrBadSnapshot)
	}
	if magic[len(snapshotMagic)] != snapshotFormat {
		return nil, fmt.Errorf("%w: format %d is not known to this version", ErrBadSnapshot,
			magic[len(snapshotMagic)])
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<27))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSnapshot, err)
	}
	defer z.Close()
	d := &decoder{r: bufio.NewReaderSize(z, 1<<16)}
	s := d.state()
	if d.err == nil {
		// Reading to the end is what verifies the checksum.
		switch _, err := d.r.ReadByte(); {
		case err == nil:
			d.err = errors.New("data after the end")
		case !errors.Is(err, io.EOF):
			d.err = err
		}
	}
	if d.err == nil {
		d.err = checkRecords(s)
	}
	if errors.Is(d.err, ErrNewerState) {
		return nil, d.err
	}
	if d.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSnapshot, d.err)
	}
	return s, nil
}

// decoder reads records; after the first error everything it returns is zero.
type decoder struct {
	r   *bufio.Reader
	err error
	buf []byte
}

func (d *decoder) state() *State {
	var head snapshotHeader
	if err := headMode.Unmarshal(d.bytes(1<<26), &head); err != nil && d.err == nil {
		d.err = fmt.Errorf("header: %w", err)
	}
	s := NewState()
	if err := checkLevel(head.Level); err != nil && d.err == nil {
		if _, d.err = io.Copy(io.Discard, d.r); d.err == nil { // it is not damaged
			d.err = err
		}
		return s
	}
	s.Index, s.ClusterID, s.Epoch = head.Index, head.ClusterID, head.Epoch
	s.Leader, s.nodes = head.Leader, head.Nodes
	s.nodeSum = sumOf(tagNode, s.nodes)
	s.level = head.Level
	for _, sp := range head.Splits {
		s.splits.Set(sp)
	}
	if s.splits.Len() != len(head.Splits) {
		d.fail(errors.New("splits repeat"))
	}
	for _, tr := range head.Travels {
		s.travels.Set(tr)
	}
	if s.travels.Len() != len(head.Travels) {
		d.fail(errors.New("time travels repeat"))
	}
	for i := 0; i < head.Tenants && d.err == nil; i++ {
		s.tenants.Load(d.tenant())
	}
	for i := 0; i < head.Shards && d.err == nil; i++ {
		s.shards.Load(d.shard())
	}
	for i := 0; i < head.Requests && d.err == nil; i++ {
		q := request{}
		d.fill(q.id[:])
		q.kind, q.index = Kind(d.uvarint()), d.uvarint()
		s.done.add(q)
	}
	for i := 0; i < head.TenantTombstones && d.err == nil; i++ {
		g := tenantTombstone{}
		d.fill(g.tenant[:])
		g.generation = neon.Generation(d.uvarint())
		s.deletedTenants.add(g)
	}
	d.safekeeping(s, &head)
	d.timelineWork(s, &head)
	for i := 0; i < head.Outcomes && d.err == nil; i++ {
		s.outcomes.add(readOutcome(d))
	}
	if d.err == nil && (s.tenants.Len() != head.Tenants || s.shards.Len() != head.Shards) {
		d.err = errRepeat
	}
	s.reindex()
	return s
}

func (d *decoder) tenant() (t Tenant) {
	d.fill(t.ID[:])
	t.Count = neon.ShardCount(d.byte())
	t.Policy.Kind = neon.PlacementKind(d.byte())
	flags := d.byte()
	t.Deleting = flags&1 != 0
	t.Stripe = neon.StripeSize(d.uvarint())
	t.Policy.Secondaries = uint32(d.uvarint())
	t.Sequence = d.uvarint()
	t.Scheduling = scheduling(string(d.bytes(64)))
	d.fail(t.Config.UnmarshalBinary(d.bytes(maxConfig)))
	if flags&2 != 0 {
		t.Remover = Remover{Node: neon.NodeID(d.uvarint()), Incarnation: d.uvarint()}
		if t.Remover.Node == 0 {
			d.fail(fmt.Errorf("tenant %s has no remover", t.ID))
		}
	}
	if flags&4 != 0 {
		if t.TimelineDeleted = d.uvarint(); t.TimelineDeleted == 0 {
			d.fail(fmt.Errorf("tenant %s has lost no timeline", t.ID))
		}
	}
	return t
}

// scheduling returns the constant, so that records do not hold a string each.
func scheduling(s string) neon.ShardScheduling {
	for _, known := range []neon.ShardScheduling{
		neon.ShardActive, neon.ShardEssential, neon.ShardPause, neon.ShardStop,
	} {
		if string(known) == s {
			return known
		}
	}
	return neon.ShardScheduling(s)
}

func (d *decoder) shard() (s Shard) {
	var id [18]byte
	d.fill(id[:])
	d.fail(s.ID.UnmarshalBinary(id[:]))
	flags := d.byte()
	s.HasGeneration, s.ComputeAcknowledged = flags&1 != 0, flags&2 != 0
	s.Unmanaged, s.Unhealthy, s.Insisted = flags&4 != 0, flags&8 != 0, flags&32 != 0
	s.Generation = neon.Generation(d.uvarint())
	s.AcknowledgedNode = neon.NodeID(d.uvarint())
	s.GenNode = neon.NodeID(d.uvarint())
	s.Attached = neon.NodeID(d.uvarint())
	s.PreferredNode = neon.NodeID(d.uvarint())
	s.Sequence = d.uvarint()
	s.ScrubbedAt = int64(d.uvarint())
	n := d.uvarint()
	if n > maxSecondaries {
		d.fail(fmt.Errorf("shard %s with %d secondaries", s.ID, n))
		return s
	}
	for range n {
		s.Secondary = append(s.Secondary, neon.NodeID(d.uvarint()))
	}
	s.PreferredAZ = neon.MakeAZ(string(d.bytes(maxName)))
	if flags&16 != 0 {
		if s.PriorNode = neon.NodeID(d.uvarint()); s.PriorNode == 0 {
			d.fail(fmt.Errorf("shard %s was at no node before", s.ID))
		}
	}
	if flags&64 != 0 {
		s.PlacedOn, s.PlacedAt = neon.NodeID(d.uvarint()), int64(d.uvarint())
		if s.PlacedOn == 0 || s.PlacedAt <= 0 {
			d.fail(fmt.Errorf("shard %s was placed nowhere", s.ID))
		}
	}
	return s
}

func (d *decoder) fail(err error) {
	if err != nil && d.err == nil {
		d.err = err
	}
}

func (d *decoder) fill(b []byte) {
	if d.err == nil {
		_, err := io.ReadFull(d.r, b)
		d.fail(err)
	}
}

func (d *decoder) byte() (b byte) {
	if d.err == nil {
		var err error
		b, err = d.r.ReadByte()
		d.fail(err)
	}
	return b
}

func (d *decoder) uvarint() (v uint64) {
	if d.err == nil {
		var err error
		v, err = binary.ReadUvarint(d.r)
		d.fail(err)
	}
	return v
}

func (d *decoder) varint() (v int64) {
	if d.err == nil {
		var err error
		v, err = binary.ReadVarint(d.r)
		d.fail(err)
	}
	return v
}

// bytes reads a length and that many bytes, which stay valid until the next call.
func (d *decoder) bytes(limit uint64) []byte {
	n := d.uvarint()
	if d.err == nil && n > limit {
		d.fail(fmt.Errorf("a field of %d bytes, at most %d can be", n, limit))
	}
	if d.err != nil {
		return nil
	}
	// A length may lie: no more is allocated than there are bytes to fill it.
	d.buf = d.buf[:0]
	for d.err == nil && uint64(len(d.buf)) < n {
		at, step := len(d.buf), min(n-uint64(len(d.buf)), 1<<16)
		d.buf = slices.Grow(d.buf, int(step))[:at+int(step)]
		d.fill(d.buf[at:])
	}
	return d.buf
}

func (s *State) encodeTo(w io.Writer) error { return s.encode(bufio.NewWriterSize(w, 1<<16)) }
