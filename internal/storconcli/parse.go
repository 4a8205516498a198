package storconcli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"quorate/api/neon"
)

// The words that policies have on the command line, for parsing and completion.
var (
	nodeSchedulings = map[string]neon.NodeScheduling{
		"active": neon.SchedulingActive, "filling": neon.SchedulingFilling,
		"pause":             neon.SchedulingPause,
		"pause_for_restart": neon.SchedulingPauseForRestart, "draining": neon.SchedulingDraining,
		"deleting": neon.SchedulingDeleting,
	}
	shardSchedulings = map[string]neon.ShardScheduling{
		"active": neon.ShardActive, "essential": neon.ShardEssential, "pause": neon.ShardPause,
		"stop": neon.ShardStop,
	}
)

var errDigit = errors.New("invalid digit found in string")

func parseText(s string) (string, error) { return s, nil }

// parseBool takes the two words and none of the abbreviations.
func parseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("[possible values: true, false]")
}

func parsePort(s string) (uint16, error) { return parseNumber[uint16](s, 16) }

func parseNumber[T ~uint8 | ~uint16 | ~uint32 | ~uint](s string, bits int) (T, error) {
	n, err := strconv.ParseUint(s, 10, bits)
	switch {
	case err == nil:
		return T(n), nil
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%s is not in 0..=%d", s, uint64(1)<<bits-1)
	}
	return 0, errDigit
}

func parseCount(s string) (uint, error) { return parseNumber[uint](s, 32) }

func parseShardCount(s string) (uint8, error) { return parseNumber[uint8](s, 8) }

func parseStripe(s string) (neon.StripeSize, error) { return parseNumber[neon.StripeSize](s, 32) }

func parseNodeScheduling(s string) (neon.NodeScheduling, error) {
	if p, ok := nodeSchedulings[s]; ok {
		return p, nil
	}
	return "", complain("Unknown scheduling state '%s'", s)
}

func parseShardScheduling(s string) (neon.ShardScheduling, error) {
	if p, ok := shardSchedulings[s]; ok {
		return p, nil
	}
	return "", complain("Unknown scheduling policy '%s', try active,essential,pause,stop", s)
}

// parseAvailability takes what an operator may set: a node cannot be told to warm up.
func parseAvailability(s string) (neon.NodeAvailability, error) {
	switch s {
	case "active":
		return neon.NodeActive, nil
	case "offline":
		return neon.NodeOffline, nil
	}
	return "", complain("Unknown availability state '%s'", s)
}

func parsePlacement(s string) (neon.Placement, error) {
	switch s {
	case "detached":
		return neon.Placement{}, nil
	case "secondary":
		return neon.Placement{Kind: neon.PlaceSecondary}, nil
	}
	count, ok := strings.CutPrefix(s, "attached:")
	if !ok {
		return neon.Placement{}, complain(
			"Unknown placement policy '%s', try detached,secondary,attached:<n>", s)
	}
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil {
		return neon.Placement{}, complain("Invalid format '%s', a valid example is 'attached:1'", s)
	}
	return neon.Placement{Kind: neon.PlaceAttached, Secondaries: uint32(n)}, nil
}

// placementCell is a policy as tables spell it.
func placementCell(p neon.Placement) string {
	switch p.Kind {
	case neon.PlaceAttached:
		return fmt.Sprintf("Attached(%d)", p.Secondaries)
	case neon.PlaceSecondary:
		return "Secondary"
	}
	return "Detached"
}

// stripeCell is a stripe size as tables spell it.
func stripeCell(n neon.StripeSize) string { return fmt.Sprintf("ShardStripeSize(%d)", n) }

func joinIDs[T fmt.Stringer](ids []T, separator string) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return strings.Join(texts, separator)
}
