package reconciler

import (
	"cmp"
	"slices"
	"time"

	"quorate/fsm"
	"quorate/scheduler"
)

// Disks says when shards are moved away from pageservers since their disks are full. The
// parts are in percent of utilisations (see scheduler.Load.DiskUtilisation).
type Disks struct {
	Enabled bool

	SourceMin      float64 // 80, from which a disk is full
	UsageMin       float64 // 0: that much is really used too
	Target         float64 // 70, down to which it is relieved
	DestinationMax float64 // 70, up to which others take something
	PerDestination int     // 8 copies at a time are made on one pageserver
	Largest        uint64  // the size of the largest shard that is moved; 0: any
}

// settling is how long what pageservers tell of their disks may be older than a move: the
// size of a copy is known there once its list of layers is.
const settling = 2 * time.Minute

// WithDefaults has the defaults in the place of zeros.
func (d Disks) WithDefaults() Disks {
	d.SourceMin = cmp.Or(d.SourceMin, 80)
	d.Target = cmp.Or(d.Target, min(70, d.SourceMin))
	d.DestinationMax = cmp.Or(d.DestinationMax, min(70, d.SourceMin))
	d.PerDestination = cmp.Or(d.PerDestination, 8)
	return d
}

// full reports whether a node is to be relieved, given whether it was before.
func (d Disks) full(was bool, l scheduler.Load) bool {
	if !d.Enabled || l.DiskTotal == 0 {
		return false
	}
	u := 100 * l.DiskUtilisation()
	if was {
		return u > d.Target
	}
	return u >= d.SourceMin && 100*float64(l.DiskUsed)/float64(l.DiskTotal) >= d.UsageMin
}

// disks is what is known for relieving disks; nil: they are not relieved.
func (o *optimiser) disks() *scheduler.Disks {
	d := o.opts.Disks
	if !d.Enabled {
		return nil
	}
	out := &scheduler.Disks{
		Target: d.Target / 100, DestinationMax: d.DestinationMax / 100,
		PerDestination: d.PerDestination, Largest: d.Largest,
	}
	for id, all := range o.left {
		for _, d := range all {
			if time.Since(d.at) < settling && d.copied {
				out.Given = append(out.Given, scheduler.Given{Shard: id, From: d.from, To: d.to})
			}
		}
	}
	return out
}

// depart is what a move of a shard is remembered as.
func depart(sh *fsm.Shard, in *fsm.Intent) departure {
	d := departure{from: sh.Attached, to: in.PreferredNode, at: time.Now()}
	for _, id := range in.Secondary {
		if !sh.HasSecondary(id) {
			d.to, d.copied = id, true
		}
	}
	if in.PreferredNode != 0 {
		return d
	}
	for _, id := range sh.Secondary {
		if !slices.Contains(in.Secondary, id) {
			d.from = id
		}
	}
	return d
}
