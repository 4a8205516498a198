package storagecontroller

import (
	"os"
	"time"

	"quorate/internal/cron"
	"quorate/reconciler"
)

// schedule is a flag that holds a schedule, or none.
type schedule struct {
	text  string
	times cron.Schedule
}

func (s *schedule) String() string { return s.text }

func (s *schedule) Set(text string) (err error) {
	s.text = text
	s.times, err = cron.Parse(text)
	return err
}

func (s *schedule) Type() string { return "schedule" }

// chaos is what the flags say about disturbing the own cluster.
func (f *flags) chaos() reconciler.Chaos {
	c := reconciler.Chaos{Interval: f.chaosInterval.std()}
	if f.chaosExit.text != "" {
		c.NextExit = func(
			after time.Time,
		) (time.Time, bool) {
			return f.chaosExit.times.Next(after)
		}
		c.Exit = func() { os.Exit(exitError) }
	}
	return c
}
