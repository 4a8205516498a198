package storagecontroller

import (
	"fmt"

	"quorate/cluster"
)

// checkCandidate refuses a candidate that would find nobody to take over from and lead an
// empty state beside the one that is served. The existing controller's instances meet in
// their database. Those of neon_local meet in a directory, and members of a cluster through
// their log.
func checkCandidate(f *flags, dir string) error {
	if !f.candidate || f.shared() || f.many() || cluster.HasLog(dir) {
		return nil
	}
	return fmt.Errorf("%w: --start-as-candidate finds no instance to take over from: there is no "+
		"state in %s, and the state of the one that leads cannot be reached through it, so this "+
		"would serve an empty one. Start without the flag to begin with an empty state (in "+
		"Neon's chart: startAsCandidate false, and with it strategy Recreate). For a restart "+
		"without a gap run three replicas: --server-id and --members, or --join (docs/operating.md). "+
		"Instances on one machine take turns with --neon-local-repo-dir", errUsage, dir)
}
