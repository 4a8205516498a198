package simpageserver

import (
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
)

// Store is the object store that all pageservers of a fleet share. It keeps
// index parts and layers under the real naming scheme, as values; Keys prints
// the names. It also plays the safekeepers' part: it knows how far the log of
// each timeline has grown.
type Store struct {
	mu        sync.Mutex
	tenants   map[neon.TenantID]map[remoteID]*remoteTimeline
	heatmaps  map[neon.ShardID]heatmap
	logs      map[neon.TimelineID]walSource
	manifests map[neon.ShardID][]manifest // ascending by generation
	// deleted timelines, by the newest owner that deleted them
	deleted     map[remoteID]neon.Generation
	counts      countSet                 // of the shards that have heatmaps
	logical     map[neon.TenantID]uint64 // sizes that pageservers report
	resident    map[neon.TenantID]uint64 // what each shard has beside shardBytes
	shardBytes  uint64
	shardLayers uint64
	walRate     int64
}

// StoreOptions shapes the data. The zero value has empty shards and a log that
// does not grow.
type StoreOptions struct {
	ShardBytes  uint64 // every shard's size beside its timelines, for heatmaps and utilization
	ShardLayers uint64 // the number of layers those bytes are in
	WALRate     int64  // growth of every timeline's log, bytes a second
}

// NewStore makes an empty store.
func NewStore(o StoreOptions) *Store {
	return &Store{
		tenants:     map[neon.TenantID]map[remoteID]*remoteTimeline{},
		heatmaps:    map[neon.ShardID]heatmap{},
		logs:        map[neon.TimelineID]walSource{},
		manifests:   map[neon.ShardID][]manifest{},
		deleted:     map[remoteID]neon.Generation{},
		logical:     map[neon.TenantID]uint64{},
		resident:    map[neon.TenantID]uint64{},
		shardBytes:  o.ShardBytes,
		shardLayers: o.ShardLayers,
		walRate:     o.WALRate,
	}
}

type remoteID struct {
	shard    neon.ShardID
	timeline neon.TimelineID
}

// layer names one layer object. owner is the shard under whose name it is, which
// for what a child of a split has not yet rewritten is an ancestor; gen is the
// generation that wrote it.
type layer struct {
	owner  owner
	lo, hi neon.Lsn
	gen    neon.Generation
	size   uint32
}

// indexPart is the table of contents of a timeline, as one generation wrote it.
type indexPart struct {
	gen      neon.Generation
	meta     timelineMeta
	disk     neon.Lsn // everything up to here is in layers
	layers   []layer  // never changed after upload
	marks    marks
	detached bool // from an ancestor it once had
	deleted  bool // deletion was acknowledged and is under way
	cutOff   bool // its owner could not be reached when it was uploaded

	importing bool // its import has not ended
}

type remoteTimeline struct {
	indices []indexPart // ascending by gen
	layers  map[layer]struct{}
}

// selectable is the index an attach in a generation loads: the newest that is
// not newer than the generation.
func (r *remoteTimeline) selectable(gen neon.Generation) *indexPart {
	for i := len(r.indices) - 1; i >= 0; i-- {
		if r.indices[i].gen <= gen {
			return &r.indices[i]
		}
	}
	return nil
}

type walSource struct {
	start   neon.Lsn
	created time.Duration
}

// beginLog records where and when a timeline's log starts; the first call wins.
func (s *Store) beginLog(tl neon.TimelineID, start neon.Lsn, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.logs[tl]; !ok {
		s.logs[tl] = walSource{start: start, created: now}
	}
}

// head is the end of a timeline's log.
func (s *Store) head(tl neon.TimelineID, now time.Duration) neon.Lsn {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.logs[tl]
	return w.start + grown(s.walRate, now-w.created)
}

// grown is rate bytes a second over d, in whole 8-byte records.
func grown(rate int64, d time.Duration) neon.Lsn {
	if rate <= 0 || d <= 0 {
		return 0
	}
	return neon.Lsn(float64(rate)*d.Seconds()) &^ 7
}

// load lists the timelines that an attach in a generation would see.
func (s *Store) load(shard neon.ShardID, gen neon.Generation) map[neon.TimelineID]indexPart {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found map[neon.TimelineID]indexPart
	for id, r := range s.tenants[shard.Tenant] {
		if id.shard != shard {
			continue
		}
		if ix := r.selectable(gen); ix != nil {
			if found == nil {
				found = map[neon.TimelineID]indexPart{}
			}
			found[id.timeline] = *ix
		}
	}
	return found
}

// putIndex uploads layers and then the index that names them. What an owner that
// nobody can reach uploads of a timeline that its successor has deleted is ignored:
// no controller can prevent it, see the package's documentation.
func (s *Store) putIndex(id remoteID, ix indexPart, added ...layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ix.gen < s.deleted[id] && ix.cutOff {
		return
	}
	timelines := s.tenants[id.shard.Tenant]
	if timelines == nil {
		timelines = map[remoteID]*remoteTimeline{}
		s.tenants[id.shard.Tenant] = timelines
	}
	r := timelines[id]
	if r == nil {
		r = &remoteTimeline{layers: map[layer]struct{}{}}
		timelines[id] = r
	}
	for _, l := range added {
		r.layers[l] = struct{}{}
	}
	at, ok := slices.BinarySearchFunc(r.indices, ix.gen,
		func(have indexPart, g neon.Generation) int { return int(int64(have.gen) - int64(g)) })
	if ok {
		r.indices[at] = ix
	} else {
		r.indices = slices.Insert(r.indices, at, ix)
	}
}

// deleteLayer removes one layer object. It reports the generation of an index
// that still names it and that an attach in generation newest or later could
// load; such a delete loses data. The same goes for the indices of other shards of
// the tenant in which reader finds somebody attached.
func (s *Store) deleteLayer(
	id remoteID, l layer, newest neon.Generation, reader func(neon.ShardID) (neon.Generation, bool),
) (inUse neon.Generation, bad bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.tenants[id.shard.Tenant][id]
	if r == nil {
		return 0, false
	}
	delete(r.layers, l)
	for other, o := range s.tenants[id.shard.Tenant] {
		if other.timeline != id.timeline || other.shard == id.shard {
			continue
		}
		if gen, ok := reader(other.shard); ok {
			if inUse, bad = o.names(l, gen); bad {
				return inUse, bad
			}
		}
	}
	return r.names(l, newest)
}

// names finds an index that an attach in a generation or a later one could load and
// that names a layer.
func (r *remoteTimeline) names(l layer, newest neon.Generation) (gen neon.Generation, found bool) {
	oldest := r.selectable(newest)
	for i := range r.indices {
		ix := &r.indices[i]
		if oldest != nil && ix.gen < oldest.gen || ix.deleted {
			continue
		}
		if slices.Contains(ix.layers, l) {
			return ix.gen, true
		}
	}
	return 0, false
}

// missing lists the timelines of a shard whose index, as an attach in a
// generation would load it, names a layer that is gone.
func (s *Store) missing(shard neon.ShardID, gen neon.Generation) (lost []neon.TimelineID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.tenants[shard.Tenant] {
		if id.shard != shard {
			continue
		}
		ix := r.selectable(gen)
		if ix == nil || ix.deleted {
			continue
		}
		for _, l := range ix.layers {
			if !s.stored(remoteID{l.owner.of(shard.Tenant), id.timeline}, l) {
				lost = append(lost, id.timeline)
				break
			}
		}
	}
	return lost
}

func (s *Store) stored(id remoteID, l layer) bool {
	r := s.tenants[id.shard.Tenant][id]
	if r == nil {
		return false
	}
	_, ok := r.layers[l]
	return ok
}

// has reports whether an attach in a generation would find the timeline.
func (s *Store) has(id remoteID, gen neon.Generation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.tenants[id.shard.Tenant][id]
	if r == nil {
		return false
	}
	ix := r.selectable(gen)
	return ix != nil && !ix.deleted && !ix.importing
}

// deleteTimeline removes all objects of one timeline of one shard, for the owner
// in a generation.
func (s *Store) deleteTimeline(id remoteID, gen neon.Generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tenants[id.shard.Tenant], id)
	s.deleted[id] = max(s.deleted[id], gen)
}

// deletePrefix removes what a tenant delete removes: everything of one shard or,
// for an unsharded id, everything whose name starts with the tenant.
func (s *Store) deletePrefix(shard neon.ShardID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.tenants[shard.Tenant] {
		if shard.IsUnsharded() || id.shard == shard {
			delete(s.tenants[shard.Tenant], id)
		}
	}
	if len(s.tenants[shard.Tenant]) == 0 {
		delete(s.tenants, shard.Tenant)
	}
	delete(s.heatmaps, shard)
	s.dropManifests(shard)
	if shard.IsUnsharded() {
		for id := range s.counts.shards(shard.Tenant) {
			delete(s.heatmaps, id)
		}
	}
}

// Keys lists the names of all objects of a tenant, sorted.
func (s *Store) Keys(t neon.TenantID) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for id, r := range s.tenants[t] {
		dir := fmt.Sprintf("tenants/%s/timelines/%s/", id.shard, id.timeline)
		for i := range r.indices {
			keys = append(keys, dir+"index_part.json-"+r.indices[i].gen.String())
		}
		for l := range r.layers {
			keys = append(keys, dir+l.name()+"-"+l.gen.String())
		}
	}
	for id := range s.heatmaps {
		if id.Tenant == t {
			keys = append(keys, fmt.Sprintf("tenants/%s/heatmap-v1.json", id))
		}
	}
	for id, all := range s.manifests {
		for _, m := range all {
			if id.Tenant == t {
				keys = append(keys, fmt.Sprintf("tenants/%s/tenant-manifest-%s.json", id, m.gen))
			}
		}
	}
	slices.Sort(keys)
	return keys
}

func (l layer) name() string {
	return fmt.Sprintf("%036X-%036X__%016X-%016X", 0, 0, uint64(l.lo), uint64(l.hi))
}

// Tenants lists the tenants that have objects, in no order.
func (s *Store) Tenants() iter.Seq[neon.TenantID] {
	s.mu.Lock()
	ids := make([]neon.TenantID, 0, len(s.tenants))
	for t := range s.tenants {
		ids = append(ids, t)
	}
	s.mu.Unlock()
	return slices.Values(ids)
}

// countSet remembers which shard counts occurred, so that all possible shards of
// a tenant can be visited.
type countSet [256]bool

func (c *countSet) add(n neon.ShardCount) { c[n] = true }

func (c *countSet) shards(t neon.TenantID) iter.Seq[neon.ShardID] {
	return func(yield func(neon.ShardID) bool) {
		for n, seen := range c {
			if !seen {
				continue
			}
			for _, id := range neon.ShardIDs(t, neon.ShardCount(n)) {
				if !yield(id) {
					return
				}
			}
		}
	}
}

// SetLogicalSize makes pageservers report a size for a tenant, in bytes.
func (s *Store) SetLogicalSize(t neon.TenantID, bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logical[t] = bytes
}

// SetResidentSize gives each shard of a tenant so many bytes beside StoreOptions.ShardBytes.
func (s *Store) SetResidentSize(t neon.TenantID, bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resident[t] = bytes
}

// ResidentSize is what a shard of a tenant has beside its timelines.
func (s *Store) ResidentSize(t neon.TenantID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shardBytes + s.resident[t]
}

func (s *Store) logicalSize(t neon.TenantID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logical[t]
}

// scan lists the shards of a tenant that have an index, with the newest generation
// that wrote one.
func (s *Store) scan(t neon.TenantID) []neon.RemoteShard {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := map[neon.ShardID]neon.Generation{}
	for id, r := range s.tenants[t] {
		for _, ix := range r.indices {
			newest[id.shard] = max(newest[id.shard], ix.gen)
		}
	}
	list := []neon.RemoteShard{}
	for shard, gen := range newest {
		list = append(list, neon.RemoteShard{Shard: shard, Generation: &gen})
	}
	slices.SortFunc(list,
		func(a, b neon.RemoteShard) int { return int(a.Shard.Number) - int(b.Shard.Number) })
	return list
}
