package simpageserver

import (
	"time"

	"quorate/api/neon"
)

// heatmap is what an attached location last published about the layers a
// secondary should hold, and what it had published before. A heatmap whose time
// lies ahead has not been uploaded yet.
type heatmap struct {
	at        time.Duration
	bytes     uint64
	layers    uint64
	prevAt    time.Duration
	prevBytes uint64
}

func (s *Store) heatmap(shard neon.ShardID, now time.Duration) (heatmap, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.heatmaps[shard]
	if !ok || h.at > now {
		return heatmap{}, false
	}
	return h, true
}

func (s *Store) heatmapBytes(shard neon.ShardID, now time.Duration) uint64 {
	h, _ := s.heatmap(shard, now)
	return h.bytes
}

// putHeatmap publishes a heatmap; the last writer wins, whatever its generation.
func (s *Store) putHeatmap(shard neon.ShardID, at time.Duration, bytes, layers uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.add(shard.Count)
	old := s.heatmaps[shard]
	s.heatmaps[shard] = heatmap{
		at: at, bytes: bytes, layers: layers, prevAt: old.at, prevBytes: old.bytes,
	}
}

// heatmaps publishes the heatmaps of one pageserver's attached shards, and computes
// what its secondaries have downloaded by them.
type heatmaps struct {
	store  *Store
	behave *Behaviour
}

// schedule publishes the first heatmap of a shard whose configuration
// asks for heatmaps, a little after it becomes active.
func (hs *heatmaps) schedule(now time.Duration, shard neon.ShardID, s *slot) {
	if !s.mode.attached() || s.mode == modeStale || !hasHeatmapPeriod(s.conf) {
		return
	}
	if _, ok := hs.store.heatmap(shard, max(now, s.since)+hs.behave.HeatmapDelay); ok {
		return
	}
	bytes, layers := s.contents(hs.store, shard.Tenant)
	hs.store.putHeatmap(shard, max(now, s.since)+hs.behave.HeatmapDelay, bytes, layers)
}

// upload publishes the heatmap of an attached shard now.
func (hs *heatmaps) upload(now time.Duration, shard neon.ShardID, s *slot) {
	bytes, layers := s.contents(hs.store, shard.Tenant)
	hs.store.putHeatmap(shard, now, bytes, layers)
}

// contents is the size of an attached shard.
func (s *slot) contents(store *Store, t neon.TenantID) (bytes, layers uint64) {
	bytes, layers = store.ResidentSize(t), store.shardLayers
	if s.tenant == nil {
		return bytes, layers
	}
	for _, tl := range s.tenant.timelines {
		layers += uint64(len(tl.layers))
		for _, l := range tl.layers {
			bytes += uint64(l.size)
		}
	}
	return bytes, layers
}

// resident is what a location has on its disk.
func (hs *heatmaps) resident(now time.Duration, shard neon.ShardID, s *slot) uint64 {
	switch {
	case s.mode.attached():
		bytes, _ := s.contents(hs.store, shard.Tenant)
		return bytes
	case s.mode == modeSecondary:
		p := hs.progress(now, shard, s)
		return p.bytesDone
	}
	return 0
}

// downloadProgress is how far a secondary is.
type downloadProgress struct {
	mtime       time.Duration // of the heatmap; valid only when hasHeatmap
	hasHeatmap  bool
	layersDone  uint64
	layersTotal uint64
	bytesDone   uint64
	bytesTotal  uint64
}

func (p downloadProgress) complete() bool { return p.layersDone >= p.layersTotal }

// progress computes what a secondary has downloaded by now from when it began
// and when the last two heatmaps appeared. A new, larger heatmap makes a
// complete secondary incomplete again.
func (hs *heatmaps) progress(now time.Duration, shard neon.ShardID, s *slot) downloadProgress {
	h, ok := hs.store.heatmap(shard, now)
	if !ok {
		return downloadProgress{}
	}
	done := s.have
	if s.since < h.at && h.prevAt < h.at {
		done = min(max(h.prevBytes, s.have), done+hs.downloaded(h.at-max(s.since, h.prevAt)))
	}
	done = min(h.bytes, done+hs.downloaded(now-max(s.since, h.at)))
	p := downloadProgress{
		mtime: h.at, hasHeatmap: true, layersTotal: h.layers, bytesTotal: h.bytes, bytesDone: done,
	}
	switch {
	case done == h.bytes && (h.bytes > 0 || hs.behave.DownloadRate >= 0):
		p.layersDone = h.layers
	case h.bytes > 0:
		p.layersDone = uint64(float64(h.layers) * float64(done) / float64(h.bytes))
	}
	return p
}

func (hs *heatmaps) downloaded(d time.Duration) uint64 {
	switch rate := hs.behave.DownloadRate; {
	case rate < 0 || d < 0:
		return 0
	case rate == 0:
		return 1 << 62
	default:
		return uint64(float64(rate) * d.Seconds())
	}
}
