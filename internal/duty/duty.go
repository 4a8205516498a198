package duty

import (
	"context"
	"log/slog"
	"sync"
)

// Duty is work that the leader does for as long as it leads.
type Duty struct {
	// Name says in the log what the duty is.
	Name string

	// Run works until ctx ends, and returns when everything that it started has
	// ended. It may return earlier when there is nothing to do in this term. It
	// takes nothing over from an earlier term but what the log says.
	Run func(ctx context.Context)
}

// Run runs all duties at the same time and returns when all have ended.
func Run(ctx context.Context, logger *slog.Logger, duties []Duty) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, d := range duties {
		wg.Go(func() {
			d.Run(ctx)
			logger.Debug("A duty of the leader has ended", "duty", d.Name)
		})
	}
}
