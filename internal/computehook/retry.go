package computehook

import (
	"context"
	"math"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
)

// notifyRetries is how often a notification without an answer is tried again.
const notifyRetries = 10

// NotifySafekeepersUntilHeard tries until the control plane has heard or refuses. It
// gives up after notifyRetries retries, and when ctx ends.
func (c *Client) NotifySafekeepersUntilHeard(
	ctx context.Context, body neon.NotifySafekeepers,
) error {
	for n := 0; ; n++ {
		out := c.NotifySafekeepers(ctx, body)
		if out.Err == nil || ctx.Err() != nil || n == notifyRetries ||
			out.Kind != Retryable && out.Kind != SlowDown {
			return out.Err
		}
		if wait.Sleep(ctx, retryPause(out.Kind, n)) != nil {
			return out.Err
		}
	}
}

// retryPause is the pause after try n: none after the first, then from a second to three.
func retryPause(k Kind, n int) time.Duration {
	switch {
	case k == SlowDown:
		return SlowDownDelay
	case n == 0:
		return 0
	}
	return min(time.Duration(math.Pow(1.1, float64(n))*float64(time.Second)), 3*time.Second)
}
