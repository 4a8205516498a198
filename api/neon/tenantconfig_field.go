package neon

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// kind says what a field of the tenant configuration may hold.
type kind uint8

const (
	kindUint      kind = iota // 64 bits
	kindPositive              // 64 bits, not zero
	kindByte                  // 8 bits
	kindBool                  //
	kindDuration              // text in the notation of Duration, of any length
	kindAlgorithm             // {kind}
	kindEviction              // {kind} or {kind, period, threshold}
	kindThrottle              // {task_kinds, initial, refill_interval, refill_amount, max}
	kindRatio                 // {numerator, denominator}
)

// configField is one field of the tenant configuration.
type configField struct {
	name string
	kind kind
}

// configFields are the fields in the order in which pageservers declare them, which is
// the order of the canonical text. It must not change: stored configurations are
// compared by their text, with those of pageservers and with older ones.
var configFields = [...]configField{
	{"checkpoint_distance", kindUint},
	{"checkpoint_timeout", kindDuration},
	{"compaction_target_size", kindUint},
	{"compaction_period", kindDuration},
	{"compaction_threshold", kindUint},
	{"compaction_upper_limit", kindUint},
	{"compaction_algorithm", kindAlgorithm},
	{"compaction_shard_ancestor", kindBool},
	{"compaction_l0_first", kindBool},
	{"compaction_l0_semaphore", kindBool},
	{"l0_flush_delay_threshold", kindUint},
	{"l0_flush_stall_threshold", kindUint},
	{"gc_horizon", kindUint},
	{"gc_period", kindDuration},
	{"image_creation_threshold", kindUint},
	{"image_layer_force_creation_period", kindDuration},
	{"pitr_interval", kindDuration},
	{"walreceiver_connect_timeout", kindDuration},
	{"lagging_wal_timeout", kindDuration},
	{"max_lsn_wal_lag", kindPositive},
	{"eviction_policy", kindEviction},
	{"min_resident_size_override", kindUint},
	{"evictions_low_residence_duration_metric_threshold", kindDuration},
	{"heatmap_period", kindDuration},
	{"lazy_slru_download", kindBool},
	{"timeline_get_throttle", kindThrottle},
	{"image_layer_creation_check_threshold", kindByte},
	{"image_creation_preempt_threshold", kindUint},
	{"lsn_lease_length", kindDuration},
	{"lsn_lease_length_for_ts", kindDuration},
	{"timeline_offloading", kindBool},
	{"rel_size_v2_enabled", kindBool},
	{"gc_compaction_enabled", kindBool},
	{"gc_compaction_verification", kindBool},
	{"gc_compaction_initial_threshold_kb", kindUint},
	{"gc_compaction_ratio_percent", kindUint},
	{"sampling_ratio", kindRatio},
	{"relsize_snapshot_cache_capacity", kindUint},
	{"basebackup_cache_enabled", kindBool},
}

// fieldIndex returns the position of a field, or -1. For 39 short names, a map would not
// be worth it.
func fieldIndex(name string) int {
	for i := range configFields {
		if configFields[i].name == name {
			return i
		}
	}
	return -1
}

// appendCanonical appends the canonical text of the value raw.
func (k kind) appendCanonical(b, raw []byte) ([]byte, error) {
	switch k {
	case kindUint:
		return appendUint(b, raw, 0, math.MaxUint64)
	case kindPositive:
		return appendUint(b, raw, 1, math.MaxUint64)
	case kindByte:
		return appendUint(b, raw, 0, math.MaxUint8)
	case kindBool:
		if s := string(raw); s != "true" && s != "false" {
			return nil, fmt.Errorf("expected a boolean, have %s", clip(raw))
		}
		return append(b, raw...), nil
	case kindDuration:
		return appendSpan(b, raw)
	case kindAlgorithm:
		return appendAlgorithm(b, raw)
	case kindEviction:
		return appendEviction(b, raw)
	case kindThrottle:
		return appendThrottle(b, raw)
	case kindRatio:
		return appendRatio(b, raw)
	}
	panic("neon: unknown kind of configuration field")
}

// appendUint appends the integer raw after checking its bounds. Fractions and
// exponents are refused, as the pageservers refuse them.
func appendUint(b, raw []byte, low, high uint64) ([]byte, error) {
	n, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil || len(raw) > 1 && raw[0] == '0' {
		return nil, fmt.Errorf("expected an unsigned integer, have %s", clip(raw))
	}
	if n < low || n > high {
		return nil, fmt.Errorf("%d is not in %d..=%d", n, low, high)
	}
	return append(b, raw...), nil
}

func appendSpan(b, raw []byte) ([]byte, error) {
	text, err := plainString(raw)
	if err != nil {
		return nil, err
	}
	sp, err := parseSpan(text)
	if err != nil {
		return nil, fmt.Errorf("duration %q: %w", text, err)
	}
	return strconv.AppendQuote(b, sp.String()), nil
}

func appendAlgorithm(b, raw []byte) ([]byte, error) {
	v, err := members(raw, "kind")
	if err != nil {
		return nil, err
	}
	switch name, err := plainString(v[0]); {
	case err != nil:
		return nil, err
	case name != "legacy" && name != "tiered":
		return nil, fmt.Errorf("unknown compaction algorithm %q", name)
	default:
		return append(append(append(b, `{"kind":"`...), name...), `"}`...), nil
	}
}

func appendEviction(b, raw []byte) ([]byte, error) {
	v, err := members(raw, "kind")
	if err != nil {
		return nil, err
	}
	name, err := plainString(v[0])
	if err != nil {
		return nil, err
	}
	switch name {
	case "NoEviction":
		return append(b, `{"kind":"NoEviction"}`...), nil
	case "LayerAccessThreshold", "OnlyImitiate":
	default:
		return nil, fmt.Errorf("unknown eviction policy %q", name)
	}
	if v, err = members(raw, "period", "threshold"); err != nil {
		return nil, err
	}
	b = append(append(append(b, `{"kind":"`...), name...), `","period":`...)
	if b, err = appendSpan(b, v[0]); err != nil {
		return nil, err
	}
	if b, err = appendSpan(append(b, `,"threshold":`...), v[1]); err != nil {
		return nil, err
	}
	return append(b, '}'), nil
}

func appendThrottle(b, raw []byte) ([]byte, error) {
	v, err := members(raw, "task_kinds", "initial", "refill_interval", "refill_amount", "max")
	if err != nil {
		return nil, err
	}
	b = append(b, `{"task_kinds":[`...)
	first := true
	err = eachElement(v[0], func(raw []byte) error {
		s, err := plainString(raw)
		if err != nil {
			return err
		}
		quoted, err := json.Marshal(s)
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, quoted...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("task_kinds: %w", err)
	}
	if b, err = appendUint(append(b, `],"initial":`...), v[1], 0, math.MaxUint32); err != nil {
		return nil, fmt.Errorf("initial: %w", err)
	}
	if b, err = appendSpan(append(b, `,"refill_interval":`...), v[2]); err != nil {
		return nil, fmt.Errorf("refill_interval: %w", err)
	}
	if b, err = appendUint(append(b, `,"refill_amount":`...), v[3], 1, math.MaxUint32); err != nil {
		return nil, fmt.Errorf("refill_amount: %w", err)
	}
	if b, err = appendUint(append(b, `,"max":`...), v[4], 0, math.MaxUint32); err != nil {
		return nil, fmt.Errorf("max: %w", err)
	}
	return append(b, '}'), nil
}

func appendRatio(b, raw []byte) ([]byte, error) {
	v, err := members(raw, "numerator", "denominator")
	if err != nil {
		return nil, err
	}
	if b, err = appendUint(append(b, `{"numerator":`...), v[0], 0, math.MaxUint64); err != nil {
		return nil, fmt.Errorf("numerator: %w", err)
	}
	if b, err = appendUint(append(b, `,"denominator":`...), v[1], 0, math.MaxUint64); err != nil {
		return nil, fmt.Errorf("denominator: %w", err)
	}
	return append(b, '}'), nil
}
