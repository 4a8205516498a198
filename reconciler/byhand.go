package reconciler

import (
	"quorate/api/neon"
	"quorate/reconciler/plan"
)

// assumed is what is shown of a shard that others attach by hand: that they do
// what they said, whatever pageservers list meanwhile.
func assumed(s *plan.Scene) map[neon.NodeID]*neon.LocationConfig {
	out := make(map[neon.NodeID]*neon.LocationConfig)
	if n := s.Shard.Attached; n != 0 {
		out[n] = s.AttachedConf(neon.AttachedSingle).LocationConfig(s.Shard.ID)
	}
	return out
}
