package simpageserver

import (
	"fmt"

	"quorate/api/neon"
)

// Preload puts shards onto the disk of a node that does not run, attached in a
// generation as a former process left them. The next start asks the controller
// what to do with them.
func (n *Node) Preload(
	shards []neon.ShardID, generation neon.Generation, stripe neon.StripeSize,
) error {
	defer n.lockLife()()
	n.host.mu.Lock()
	defer n.host.mu.Unlock()
	if n.proc != nil {
		return fmt.Errorf("preload node %s: %w", n.opt.ID, ErrRunning)
	}
	for _, id := range shards {
		s := &slot{mode: modeSingle, gen: generation}
		if !id.IsUnsharded() {
			s.stripe = stripe
		}
		if old := n.host.core.slots[id]; old != nil {
			return fmt.Errorf("preload node %s: it has shard %s already", n.opt.ID, id)
		}
		n.host.core.slots[id] = s
		n.host.core.count(s)
	}
	n.host.emptyDisk = false
	return nil
}
