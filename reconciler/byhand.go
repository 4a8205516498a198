package reconciler

import (
	"quorate/api/neon"
)

// assumed is what is shown of a shard that others attach by hand: that they do
// what they said, whatever pageservers list meanwhile.
func assumed(s *Scene) map[neon.NodeID]*neon.LocationConfig {
	out := make(map[neon.NodeID]*neon.LocationConfig)
	if n := s.Shard.Attached; n != 0 {
		out[n] = wire(s.Shard.ID, s.attachedConf(neon.AttachedSingle))
	}
	return out
}
