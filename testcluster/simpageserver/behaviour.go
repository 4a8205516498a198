package simpageserver

import (
	"math/rand/v2"
	"time"

	"quorate/api/neon"
	"quorate/testcluster/simpageserver/archival"
)

// Behaviour is how fast and how well a pageserver works when nothing is
// injected. The zero value is a perfect one: everything is immediate.
type Behaviour struct {
	// SlotBusy is how long a structural change holds its slot in progress.
	SlotBusy time.Duration
	// Activation is how long an attached shard stays Attaching; a random part
	// up to ActivationJitter is added.
	Activation       time.Duration
	ActivationJitter time.Duration
	// LazyActivation is added for attaches with lazy=true until the first access.
	LazyActivation time.Duration
	// BrokenOneIn breaks one in so many attaches; 0 breaks none.
	BrokenOneIn int
	// DownloadRate is what one secondary downloads, in bytes a second. Zero is
	// without limit, negative never progresses.
	DownloadRate int64
	// ReplayRate is how fast an attached timeline catches up with the log, in
	// bytes a second. Zero is at once.
	ReplayRate int64
	// NoUploads is for a pageserver that cannot upload what its timelines have got: whoever
	// takes over has to replay it.
	NoUploads bool
	// HeatmapDelay passes between activation and the first periodic heatmap.
	HeatmapDelay time.Duration
	// DeleteTimeline is how long a timeline stays in deletion after its 202.
	DeleteTimeline time.Duration
	// ImportTime is how long the import of a timeline takes; ImportFails, when set,
	// says why one fails, empty if it does not.
	ImportTime  time.Duration
	ImportFails func(neon.ShardID, neon.TimelineID) string
	// Offload makes the background work offload archived timelines, in this order of
	// steps; ArchivalStep passes between two steps of an offload or an archival
	// request, and between an archival and its upload.
	Offload      bool
	OffloadOrder archival.Order
	ArchivalStep time.Duration
	// SplitStage is how long each stage of a split takes, and SplitFailsAt the stage
	// after which splits fail; SplitUntouched is never.
	SplitStage   time.Duration
	SplitFailsAt SplitStage
	// Takes says how long some calls take: the creation and the deletion of a timeline, its
	// archival, its detachment, its activation after an import, the deletion of a tenant.
	// They go on when the caller is gone. The same call meanwhile is refused.
	Takes map[Route]time.Duration
	// DiskBytes is the size of the disk; zero means 1 TiB.
	DiskBytes uint64
	// Utilization, when set, rewrites what the pageserver is about to report.
	Utilization func(neon.Utilization) neon.Utilization
}

func (b *Behaviour) activation(rng *rand.Rand) time.Duration {
	if b.ActivationJitter <= 0 {
		return b.Activation
	}
	return b.Activation + time.Duration(rng.Int64N(int64(b.ActivationJitter)))
}

func (b *Behaviour) diskBytes() uint64 {
	if b.DiskBytes == 0 {
		return 1 << 40
	}
	return b.DiskBytes
}

// maxShards is the number of shards at which a pageserver calls itself full.
const maxShards = 2500

// utilization reports the larger of the disk's and the shards' share.
func (c *core) utilization(at time.Time) neon.Utilization {
	disk := c.behave.diskBytes()
	shards := uint64(c.attached + c.secondary)
	used := shards * c.store.shardBytes
	u := neon.Utilization{
		DiskUsageBytes: used, FreeSpaceBytes: disk - min(disk, used), DiskWantedBytes: used,
		DiskUsablePct: 80,
		ShardCount:    uint32(shards), MaxShardCount: maxShards, CapturedAt: neon.Millis{Time: at},
	}
	if c.behave.Utilization != nil {
		u = c.behave.Utilization(u)
	}
	if u.CachedScore == nil {
		score := u.Score()
		u.CachedScore = &score
	}
	return u
}
