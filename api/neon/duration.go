package neon

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode"
)

// Duration is a time.Duration whose text has the notation of pageserver configuration:
// pairs of a number and a unit, such as `1h 30m`. It prints normalised, so equal
// durations have equal texts, however they were spelled.
type Duration time.Duration

// Seconds per unit; months and years are the fixed lengths of that notation
// (30.44 and 365.25 days).
const (
	minute = 60
	hour   = 60 * minute
	day    = 24 * hour
	week   = 7 * day
	month  = 2_630_016
	year   = 31_557_600
)

var errDurationRange = errors.New("number is too large")

// ParseDuration reads pairs of a number and a unit, with or without spaces. The units
// are ns us ms s m h day week month year, with their usual short and long names. A
// missing unit, a sign, a fraction and more than 292 years are errors.
func ParseDuration(s string) (Duration, error) {
	sp, err := parseSpan(s)
	if err != nil {
		return 0, fmt.Errorf("duration %q: %w", s, err)
	}
	const maxSecs = math.MaxInt64 / int64(time.Second)
	if sp.secs > uint64(maxSecs) || sp.secs*1e9+uint64(sp.nanos) > math.MaxInt64 {
		return 0, fmt.Errorf("duration %q: %w", s, errDurationRange)
	}
	return Duration(sp.secs*1e9 + uint64(sp.nanos)), nil
}

// String prints the normalised text, such as `5m`, `1m 30s`, `1day` or `0s`. A negative
// duration prints as `0s`, because the notation has none.
func (d Duration) String() string {
	if d < 0 {
		d = 0
	}
	return span{secs: uint64(d / 1e9), nanos: uint32(d % 1e9)}.String()
}

// MarshalText is String as bytes.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is ParseDuration.
func (d *Duration) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDuration(string(b))
	return err
}

// span is a duration in the full range of the notation, which is wider than that of
// time.Duration. It normalises tenant configuration, so that `1000years` is kept.
type span struct {
	secs  uint64
	nanos uint32
}

func parseSpan(s string) (span, error) {
	var total span
	var n uint64
	state := wantNumber
	start := 0
	for i, c := range s {
		switch {
		case c >= '0' && c <= '9':
			if state == inUnit {
				if err := total.add(n, s[start:i]); err != nil {
					return span{}, err
				}
				state = wantNumber
			}
			if state == wantNumber {
				n, state = 0, inNumber
			}
			digit := uint64(c - '0')
			if n > (math.MaxUint64-digit)/10 {
				return span{}, errDurationRange
			}
			n = n*10 + digit
		case unicode.IsSpace(c):
			if state == inUnit {
				if err := total.add(n, s[start:i]); err != nil {
					return span{}, err
				}
				state = wantNumber
			}
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			if state == wantNumber {
				return span{}, fmt.Errorf("expected number at %d", i)
			}
			if state == inNumber {
				start, state = i, inUnit
			}
		default:
			return span{}, fmt.Errorf("invalid character at %d", i)
		}
	}
	switch {
	case state == inUnit:
		return total, total.add(n, s[start:])
	case state == inNumber:
		return span{}, fmt.Errorf("time unit needed, for example %dsec or %dms", n, n)
	case start == 0:
		return span{}, errors.New("value was empty")
	}
	return total, nil
}

// States of parseSpan.
const (
	wantNumber = iota
	inNumber
	inUnit
)

// add adds n units to the span.
func (sp *span) add(n uint64, unit string) error {
	var secs, nanos uint64
	perUnit := uint64(1)
	into := &secs
	switch unit {
	case "nanos", "nsec", "ns":
		into = &nanos
	case "usec", "us":
		into, perUnit = &nanos, 1_000
	case "millis", "msec", "ms":
		into, perUnit = &nanos, 1_000_000
	case "seconds", "second", "secs", "sec", "s":
	case "minutes", "minute", "min", "mins", "m":
		perUnit = minute
	case "hours", "hour", "hr", "hrs", "h":
		perUnit = hour
	case "days", "day", "d":
		perUnit = day
	case "weeks", "week", "w":
		perUnit = week
	case "months", "month", "M":
		perUnit = month
	case "years", "year", "y":
		perUnit = year
	default:
		return fmt.Errorf(
			"unknown time unit %q, supported units: ns, us, ms, sec, min, hours, days, weeks, months, years (and few variations)",
			unit)
	}
	if n > math.MaxUint64/perUnit {
		return errDurationRange
	}
	*into = n * perUnit
	if nanos > math.MaxUint64-uint64(sp.nanos) {
		return errDurationRange
	}
	nanos += uint64(sp.nanos)
	carry := nanos / 1e9
	if secs > math.MaxUint64-carry || sp.secs > math.MaxUint64-carry-secs {
		return errDurationRange
	}
	sp.secs += secs + carry
	sp.nanos = uint32(nanos % 1e9)
	return nil
}

func (sp span) String() string {
	if sp == (span{}) {
		return "0s"
	}
	inYear := sp.secs % year
	inMonth := inYear % month
	parts := [...]struct {
		n      uint64
		unit   string
		plural string
	}{
		{sp.secs / year, "year", "s"},
		{inYear / month, "month", "s"},
		{inMonth / day, "day", "s"},
		{inMonth % day / hour, "h", ""},
		{inMonth % hour / minute, "m", ""},
		{inMonth % minute, "s", ""},
		{uint64(sp.nanos / 1e6), "ms", ""},
		{uint64(sp.nanos / 1e3 % 1e3), "us", ""},
		{uint64(sp.nanos % 1e3), "ns", ""},
	}
	b := make([]byte, 0, 24)
	for _, p := range parts {
		if p.n == 0 {
			continue
		}
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendUint(b, p.n, 10)
		b = append(b, p.unit...)
		if p.n > 1 {
			b = append(b, p.plural...)
		}
	}
	return string(b)
}
