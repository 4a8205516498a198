package storagecontroller

import (
	"fmt"

	"github.com/spf13/pflag"

	"quorate/reconciler"
)

// registerDisks takes the flags for automatic migrations away from full disks. The names
// are those that newer releases of the existing controller take. Their defaults are not
// known, so that 0 is ours.
func registerDisks(fs *pflag.FlagSet, d *reconciler.Disks) {
	const name = "pageserver-auto-migration-"
	fs.BoolVar(&d.Enabled, name+"enabled", false,
		"move shards away from pageservers whose disks are full")
	fs.Float64Var(&d.SourceMin, name+"disk-utilization-source-min", 0,
		"`percent` of utilisation from which a disk is full: of the disk that is used, or of what may be used that its shards want (0: 80)")
	fs.Float64Var(&d.UsageMin, name+"disk-actual-usage-source-min", 0,
		"`percent` of the disk that is really used too before anything is moved")
	fs.Float64Var(&d.Target, name+"disk-utilization-source-target", 0,
		"`percent` of utilisation down to which shards are moved away (0: 70)")
	fs.Float64Var(&d.DestinationMax, name+"disk-utilization-destination-max", 0,
		"`percent` of utilisation up to which other pageservers take shards (0: 70)")
	fs.IntVar(&d.PerDestination, name+"max-migrations-per-destination", 0,
		"copies of such shards made at once on one pageserver (0: 8)")
	fs.Uint64Var(&d.Largest, name+"max-shard-size-limit", 0,
		"size in `bytes` of the largest shard that is moved so (0: any)")
}

// checkDisks refuses what would move shards forth and back.
func checkDisks(d reconciler.Disks) error {
	if d.SourceMin < 0 || d.UsageMin < 0 || d.Target < 0 || d.DestinationMax < 0 ||
		d.PerDestination < 0 {
		return fmt.Errorf("%w: no --pageserver-auto-migration flag may be negative", errUsage)
	}
	if d = d.WithDefaults(); d.Enabled && max(d.Target, d.DestinationMax) > d.SourceMin {
		return fmt.Errorf("%w: the target %g and the destination maximum %g of "+
			"--pageserver-auto-migration-disk-utilization must not be above the source minimum %g",
			errUsage, d.Target, d.DestinationMax, d.SourceMin)
	}
	return nil
}
