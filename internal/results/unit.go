package results

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Format prints a value of a unit with about three digits.
func Format(v float64, unit string) string {
	switch unit {
	case Seconds:
		return Short(time.Duration(math.Round(v * float64(time.Second))))
	case Bytes:
		if v >= 1e6 {
			return fmt.Sprintf("%.3g MB", v/1e6)
		}
		return grouped(v) + " B"
	case Percent:
		return fmt.Sprintf("%.2f %%", v)
	case Times:
		return fmt.Sprintf("%.3f", v)
	case Count:
		return grouped(v)
	}
	return grouped(v) + " " + unit
}

// Short prints a duration with about three digits.
func Short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d >= 100*time.Microsecond:
		return d.Round(time.Microsecond).String()
	}
	return d.Round(10 * time.Nanosecond).String()
}

// grouped prints a number with commas between thousands.
func grouped(v float64) string {
	if math.Abs(v) < 100 && v != math.Trunc(v) {
		return fmt.Sprintf("%.3g", v)
	}
	digits := strconv.FormatFloat(math.Abs(v), 'f', 0, 64)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	if v < 0 {
		return "-" + b.String()
	}
	return b.String()
}

// GoalText says what is asked for.
func (r Result) GoalText() string {
	sign := "≤"
	if r.Better == More {
		sign = "≥"
	}
	var all []string
	for _, g := range r.Goals {
		of := ""
		if r.N > 1 || len(r.Goals) > 1 {
			of = string(g.Of) + " "
		}
		all = append(all, of+sign+" "+Format(g.Bound, r.Unit))
	}
	return strings.Join(all, ", ")
}
