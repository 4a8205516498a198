package decide

import (
	"context"

	"quorate/fsm"
)

// Log is the replicated state.
type Log interface {
	// Propose returns after the command was applied here. A refusal comes back as
	// the error together with its Result.
	Propose(ctx context.Context, id fsm.RequestID, c fsm.Command) (fsm.Result, error)

	// State is the newest local state.
	State() *fsm.State

	// Changed returns a channel that is closed when State has changed. To miss nothing,
	// take it before the state.
	Changed() <-chan struct{}

	// ReadState is a state that holds everything acknowledged before the call, on
	// whichever replica.
	ReadState(ctx context.Context) (*fsm.State, error)
}
