package simpageserver

import (
	"strings"
	"time"

	"quorate/api/neon"
)

// mode is the compact form of neon.LocationMode. The zero value is a slot that
// has nothing on disk yet.
type mode uint8

const (
	modeNone mode = iota
	modeSingle
	modeMulti
	modeStale
	modeSecondary
)

func modeOf(m neon.LocationMode) mode {
	switch m {
	case neon.AttachedSingle:
		return modeSingle
	case neon.AttachedMulti:
		return modeMulti
	case neon.AttachedStale:
		return modeStale
	case neon.Secondary:
		return modeSecondary
	}
	return modeNone
}

func (m mode) wire() neon.LocationMode {
	switch m {
	case modeSingle:
		return neon.AttachedSingle
	case modeMulti:
		return neon.AttachedMulti
	case modeStale:
		return neon.AttachedStale
	case modeSecondary:
		return neon.Secondary
	}
	return neon.Detached
}

func (m mode) attached() bool { return m == modeSingle || m == modeMulti || m == modeStale }

func hasHeatmapPeriod(c neon.TenantConfig) bool {
	return strings.Contains(c.JSON(), `"heatmap_period":`)
}

// slot is one shard on one pageserver. mode, gen, stripe, warm and conf are on
// disk and survive a kill; the rest is memory. It is kept small: a simulated
// pageserver holds hundreds of thousands of them.
type slot struct {
	conf   neon.TenantConfig
	tenant *tenant       // timelines in memory; nil when there are none
	since  time.Duration // attached: when it becomes active; secondary: when it became one
	have   uint64        // secondary: bytes on disk at since
	gen    neon.Generation
	stripe neon.StripeSize
	mode   mode
	warm   bool
	busy   bool // a structural change is under way: listed as null
	broken bool
	lazy   bool // activation queued behind others; the first access jumps the queue

	splitting *splitting // the split of it that is under way
}

// State is what a location is doing.
type State string

// The states of a location.
const (
	InProgress State = "InProgress" // between two configurations; listed as null
	Attaching  State = "Attaching"
	Active     State = "Active"
	Broken     State = "Broken"
	Warm       State = "Secondary"
)

func (s *slot) state(now time.Duration) State {
	switch {
	case s.busy:
		return InProgress
	case s.mode == modeSecondary:
		return Warm
	case s.broken:
		return Broken
	case now < s.since:
		return Attaching
	}
	return Active
}

// LocationView is a copy of one location of a simulated pageserver.
type LocationView struct {
	Mode       neon.LocationMode
	Generation neon.Generation // zero unless attached
	StripeSize neon.StripeSize
	TenantConf neon.TenantConfig
	State      State
}

func (s *slot) view(now time.Duration) LocationView {
	v := LocationView{Mode: s.mode.wire(), StripeSize: s.stripe, State: s.state(now)}
	if s.mode.attached() {
		v.Generation = s.gen
	}
	if s.mode != modeNone {
		v.TenantConf = s.conf
	}
	return v
}
