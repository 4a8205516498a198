package neon

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"
)

// Millis is a moment that prints in RFC 3339 with exactly three digits for the fraction
// of the second, as pageservers print it.
type Millis struct{ time.Time }

const millisLayout = "2006-01-02T15:04:05.000Z"

// MarshalJSON prints the moment in UTC.
func (m Millis) MarshalJSON() ([]byte, error) {
	return m.UTC().AppendFormat(nil, `"`+millisLayout+`"`), nil
}

// UnmarshalJSON reads any RFC 3339 moment.
func (m *Millis) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &m.Time) }

// FullUtilization is the score of a pageserver that is used to its capacity. An empty
// one scores 0. Higher scores mean overload.
const FullUtilization = 1_000_000

// Utilization is the answer of a pageserver's GET /v1/utilization. It is the load of the
// pageserver, and its heartbeat.
type Utilization struct {
	DiskUsageBytes  uint64  `json:"disk_usage_bytes"`
	FreeSpaceBytes  uint64  `json:"free_space_bytes"`
	DiskWantedBytes uint64  `json:"disk_wanted_bytes"` // by all shards
	DiskUsablePct   uint8   `json:"disk_usable_pct"`   // of usage and free space together
	ShardCount      uint32  `json:"shard_count"`
	MaxShardCount   uint32  `json:"max_shard_count"`
	CachedScore     *uint64 `json:"utilization_score"` // see Score
	CapturedAt      Millis  `json:"captured_at"`
}

// UnmarshalJSON insists on the disk figures and the time.
func (u *Utilization) UnmarshalJSON(b []byte) error {
	type plain Utilization
	if err := object(b, (*plain)(u), "disk_usage_bytes", "free_space_bytes",
		"captured_at"); err != nil {
		return err
	}
	if u.DiskUsablePct > 100 {
		return fmt.Errorf("disk_usable_pct: %d is not a percentage", u.DiskUsablePct)
	}
	return nil
}

// Score returns the load in parts of FullUtilization. It is the higher of two ratios:
// wanted disk to usable disk, and shards to the most shards. A pageserver that reports
// no capacity is overloaded as soon as it has anything.
func (u Utilization) Score() uint64 {
	total := u.DiskUsageBytes + u.FreeSpaceBytes
	if total < u.DiskUsageBytes {
		total = math.MaxUint64
	}
	usable := ratio(total, uint64(u.DiskUsablePct), 100)
	return max(ratio(u.DiskWantedBytes, FullUtilization, usable),
		ratio(uint64(u.ShardCount), FullUtilization, uint64(u.MaxShardCount)))
}

// ratio is a*b/c, saturating; 0/0 is 0.
func ratio(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi == 0 && lo == 0 {
		return 0
	}
	if hi >= c {
		return math.MaxUint64
	}
	q, _ := bits.Div64(hi, lo, c)
	return q
}

// SecondaryProgress says how warm a secondary location is. HeatmapMtime is nil until it
// has read a heatmap.
type SecondaryProgress struct {
	HeatmapMtime     *Millis `json:"heatmap_mtime"`
	LayersDownloaded uint64  `json:"layers_downloaded"`
	LayersTotal      uint64  `json:"layers_total"`
	BytesDownloaded  uint64  `json:"bytes_downloaded"`
	BytesTotal       uint64  `json:"bytes_total"`
}

// WaitLSNRequest is the body of a pageserver's POST …/wait_lsn, which waits until every
// timeline has reached its position. On the wire, the timelines are fields beside
// `timeout`, which is an object of seconds and nanoseconds.
type WaitLSNRequest struct {
	Timelines map[TimelineID]Lsn
	Timeout   time.Duration
}

type wireTimeout struct {
	Secs  uint64 `json:"secs"`
	Nanos uint32 `json:"nanos"`
}

// MarshalJSON prints the timelines in order, then the timeout.
func (r WaitLSNRequest) MarshalJSON() ([]byte, error) {
	ids := make([]TimelineID, 0, len(r.Timelines))
	for id := range r.Timelines {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b TimelineID) int { return slices.Compare(a[:], b[:]) })
	b := []byte{'{'}
	for _, id := range ids {
		b = fmt.Appendf(b, `"%s":"%s",`, id, r.Timelines[id])
	}
	d := max(0, r.Timeout)
	return fmt.Appendf(b, `"timeout":{"secs":%d,"nanos":%d}}`, d/time.Second, d%time.Second), nil
}

// UnmarshalJSON reads the wire form.
func (r *WaitLSNRequest) UnmarshalJSON(b []byte) error {
	*r = WaitLSNRequest{Timelines: make(map[TimelineID]Lsn)}
	timed := false
	err := eachField(b, func(key string, raw []byte) error {
		if key == "timeout" {
			timed = true
			var t wireTimeout
			if err := object(raw, &t, "secs", "nanos"); err != nil {
				return fmt.Errorf("timeout: %w", err)
			}
			t.Secs = min(t.Secs, math.MaxInt64/uint64(time.Second)-1)
			r.Timeout = time.Duration(t.Secs)*time.Second + time.Duration(t.Nanos)
			return nil
		}
		id, err := ParseTimelineID(key)
		if err != nil {
			return err
		}
		var lsn Lsn
		if err := json.Unmarshal(raw, &lsn); err != nil {
			return err
		}
		r.Timelines[id] = lsn
		return nil
	})
	if err == nil && !timed {
		err = fmt.Errorf("missing field `timeout`")
	}
	return err
}

// MaySchedule says whether a pageserver takes new shards, and what its load is. On the
// wire it is "No", which is a nil Load, or {"Yes": utilization}.
type MaySchedule struct{ Load *Utilization }

// MarshalJSON prints the wire form.
func (m MaySchedule) MarshalJSON() ([]byte, error) {
	if m.Load == nil {
		return []byte(`"No"`), nil
	}
	return json.Marshal(map[string]*Utilization{"Yes": m.Load})
}
