// Package cron reads schedules of the form `sec min hour day month weekday [year]`,
// in UTC, and finds the next time of one.
//
// A field is a list of values, ranges a-b, `*` or `?` for all, and any of these with
// a step /n. Months and weekdays also have names, in full or by three letters;
// weekdays count from 1, which is Sunday. Both the day and the weekday have to match.
// @hourly, @daily, @weekly, @monthly and @yearly are short for the first moment of
// each.
package cron

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Schedule is a parsed schedule. The zero Schedule has no times.
type Schedule struct {
	sec, min, hour, day, month, weekday uint64 // a bit for each value
	years                               []span // none: all
}

type span struct{ first, last, step int }

// field describes the values of one field.
type field struct {
	name        string
	first, last int
	names       []string // of the values from first on
}

var errFields = errors.New("want six or seven fields: sec min hour day month weekday [year]")

func fields() []field {
	months := []string{
		"january", "february", "march", "april", "may", "june", "july", "august", "september",
		"october", "november", "december",
	}
	days := []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
	return []field{
		{"sec", 0, 59, nil}, {"min", 0, 59, nil}, {"hour", 0, 23, nil}, {"day", 1, 31, nil},
		{"month", 1, 12, months}, {"weekday", 1, 7, days},
	}
}

// Years that a schedule can speak of.
const (
	firstYear = 1970
	lastYear  = 2100
)

// Parse reads a schedule.
func Parse(text string) (s Schedule, err error) {
	switch strings.TrimSpace(text) {
	case "@yearly":
		text = "0 0 0 1 1 *"
	case "@monthly":
		text = "0 0 0 1 * *"
	case "@weekly":
		text = "0 0 0 * * 1"
	case "@daily":
		text = "0 0 0 * * *"
	case "@hourly":
		text = "0 0 * * * *"
	}
	parts := strings.Fields(text)
	if len(parts) != 6 && len(parts) != 7 {
		return s, errFields
	}
	sets := []*uint64{&s.sec, &s.min, &s.hour, &s.day, &s.month, &s.weekday}
	for i, f := range fields() {
		spans, err := f.parse(parts[i])
		if err != nil {
			return Schedule{}, err
		}
		for _, sp := range spans {
			for v := sp.first; v <= sp.last; v += sp.step {
				*sets[i] |= 1 << v
			}
		}
	}
	if len(parts) == 7 {
		if s.years, err = (field{"year", firstYear, lastYear, nil}).parse(parts[6]); err != nil {
			return Schedule{}, err
		}
	}
	return s, nil
}

func (f field) parse(text string) (spans []span, err error) {
	for part := range strings.SplitSeq(text, ",") {
		sp, err := f.span(part)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", f.name, part, err)
		}
		spans = append(spans, sp)
	}
	return spans, nil
}

func (f field) span(text string) (sp span, err error) {
	values, step, stepped := strings.Cut(text, "/")
	first, last, ranged := strings.Cut(values, "-")
	switch {
	case values == "*" || values == "?":
		sp = span{f.first, f.last, 1}
	default:
		if sp.first, err = f.value(first); err != nil {
			return sp, err
		}
		sp.last, sp.step = sp.first, 1
		if ranged {
			if sp.last, err = f.value(last); err != nil {
				return sp, err
			}
		} else if stepped {
			sp.last = f.last
		}
	}
	if stepped {
		if sp.step, err = strconv.Atoi(step); err != nil || sp.step < 1 {
			return sp, errors.New("a step is a number from 1 on")
		}
		sp.step = min(sp.step, f.last-f.first+1)
	}
	if sp.first > sp.last {
		return sp, errors.New("a range begins after its end")
	}
	return sp, nil
}

func (f field) value(text string) (int, error) {
	for i, name := range f.names {
		if t := strings.ToLower(text); t == name || t == name[:3] {
			return f.first + i, nil
		}
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < f.first || v > f.last {
		return 0, fmt.Errorf("want a value from %d to %d", f.first, f.last)
	}
	return v, nil
}

// Next is the first time of the schedule after t; false means that there is none.
func (s Schedule) Next(t time.Time) (time.Time, bool) {
	t = t.UTC().Truncate(time.Second).Add(time.Second)
	year, month, day := t.Date()
	for d := time.Date(year, month, day, 0, 0, 0, 0,
		time.UTC); d.Year() <= lastYear; d = d.AddDate(0, 0, 1) {
		if !s.onDay(d) {
			continue
		}
		from := 0
		if d.Before(t) {
			from = int(t.Sub(d) / time.Second)
		}
		if at, ok := s.inDay(from); ok {
			return d.Add(time.Duration(at) * time.Second), true
		}
	}
	return time.Time{}, false
}

func (s Schedule) onDay(d time.Time) bool {
	if s.day&(1<<d.Day()) == 0 || s.month&(1<<d.Month()) == 0 ||
		s.weekday&(1<<(d.Weekday()+1)) == 0 {
		return false
	}
	for _, y := range s.years {
		if d.Year() >= y.first && d.Year() <= y.last && (d.Year()-y.first)%y.step == 0 {
			return true
		}
	}
	return len(s.years) == 0
}

// inDay is the first second of a day, not before from, at which hour, minute and
// second match.
func (s Schedule) inDay(from int) (int, bool) {
	hour, min, sec := from/3600, from/60%60, from%60
	for h, ok := next(s.hour, hour); ok; h, ok = next(s.hour, h+1) {
		if h > hour {
			min, sec = 0, 0
		}
		for m, ok := next(s.min, min); ok; m, ok = next(s.min, m+1) {
			if h > hour || m > from/60%60 {
				sec = 0
			}
			if x, ok := next(s.sec, sec); ok {
				return h*3600 + m*60 + x, true
			}
		}
	}
	return 0, false
}

// next is the first value of a set from v on.
func next(set uint64, v int) (int, bool) {
	rest := set >> v << v
	return bits.TrailingZeros64(rest), rest != 0
}
