package neonstate

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"quorate/api/neon"
	"quorate/fsm"
)

// What our records can hold.
const (
	maxConfig = 1 << 20
	maxError  = 4096
)

var errText = errors.New("not as an existing controller writes it")

// placement reads a placement policy, also in the spelling of the first versions.
func placement(text string) (p neon.Placement, err error) {
	if !json.Valid([]byte(text)) {
		return p, fmt.Errorf("placement policy %q: %w", clip(text), errText)
	}
	switch text {
	case `"Single"`:
		return neon.Attached(0), nil
	case `{"Double": 1}`, `{"Double":1}`:
		return neon.Attached(1), nil
	}
	if err := p.UnmarshalJSON([]byte(strings.TrimSpace(text))); err != nil {
		return p, fmt.Errorf("placement policy %q: %w", clip(text), errText)
	}
	return p, nil
}

// shardScheduling reads the scheduling policy of a shard.
func shardScheduling(text string) (s neon.ShardScheduling, err error) {
	if err := json.Unmarshal([]byte(text), &s); err != nil || !s.Valid() {
		return neon.ShardActive, fmt.Errorf("scheduling policy %q: %w", clip(text), errText)
	}
	return s, nil
}

// tenantConfig reads a configuration. ignored names what is not known here.
func tenantConfig(text string) (c neon.TenantConfig, ignored error, err error) {
	if len(text) > maxConfig {
		return c, nil, fmt.Errorf("a configuration of %d bytes: %w", len(text), errText)
	}
	if c, ignored = neon.ParseTenantConfig([]byte(text), neon.RejectUnknown); ignored == nil {
		return c, nil, nil
	}
	c, err = neon.ParseTenantConfig([]byte(text), neon.IgnoreUnknown)
	return c, ignored, err
}

var nodePolicies = map[string]neon.NodeScheduling{
	"active": neon.SchedulingActive, "filling": neon.SchedulingFilling,
	"pause": neon.SchedulingPause, "pause_for_restart": neon.SchedulingPauseForRestart,
	"draining": neon.SchedulingDraining, "deleting": neon.SchedulingDeleting,
}

var safekeeperPolicies = map[string]neon.SafekeeperScheduling{
	"active": neon.SafekeeperActive, "activating": neon.SafekeeperActivating,
	"pause": neon.SafekeeperPause, "disabled": neon.SafekeeperPause,
	"decomissioned": neon.SafekeeperDecomissioned,
}

// spelled finds how the database spells a policy.
func spelled[P ~string](names map[string]P, p P) string {
	best := ""
	for name, is := range names {
		if is == p && (best == "" || name > best) {
			best = name
		}
	}
	return best
}

// shardStatuses reads what the shards of an import have reported, for a number of shards.
func shardStatuses(text string, count neon.ShardCount) ([]neon.ShardImport, error) {
	var all map[string]neon.ShardImport
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("statuses of shards: %w", errText)
	}
	list := make([]neon.ShardImport, count.Shards())
	if len(all) != len(list) {
		return nil, fmt.Errorf("statuses of %d shards, not %d: %w", len(all), len(list), errText)
	}
	for i := range list {
		s, ok := all[fmt.Sprintf("%02x%02x", i, uint8(count))]
		if !ok {
			return nil, fmt.Errorf("no status of shard %d of %d: %w", i, len(list), errText)
		}
		if len(s.Error) > maxError {
			return nil, fmt.Errorf("an error of %d bytes: %w", len(s.Error), errText)
		}
		list[i] = s
	}
	return list, nil
}

// statusText is the reverse of shardStatuses.
func statusText(i *fsm.Import) (string, error) {
	all := make(map[string]neon.ShardImport, len(i.Shards))
	for n, s := range i.Shards {
		all[fmt.Sprintf("%02x%02x", n, uint8(i.Count))] = s
	}
	text, err := json.Marshal(all)
	return string(text), err
}

// clip keeps a text from filling a line.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "… (" + strconv.Itoa(len(s)) + " bytes)"
}
