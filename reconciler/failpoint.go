package reconciler

import (
	"context"

	"quorate/api/neon"
	"quorate/reconciler/plan"
)

// Failpoints are places at which tests hold the reconciler or make it fail. Their
// errors are that of ctx.
type Failpoints interface {
	// Sleep returns after the time set for the place.
	Sleep(ctx context.Context, name string) error

	// Pausable returns when the process may go on.
	Pausable(ctx context.Context, name string) error

	// Return reports whether to fail at the place, and with which argument.
	Return(ctx context.Context, name string) (arg string, hit bool, err error)

	// Armed reports whether anything would happen at the place.
	Armed(name string) bool
}

// beforeIssue is the place before a generation is asked for.
const beforeIssue = "reconciler-pre-increment-generation"

// issueSeparately reports whether to number attachments one by one although many
// could be numbered in one entry: a test wants to hold them in between.
func issueSeparately(f Failpoints) bool { return f != nil && f.Armed(beforeIssue) }

// pointBefore names the place that a shard passes right before a step; empty for
// steps without one. The names are those that existing tests know: a migration is
// live while the location it comes from can be reached.
func pointBefore(sc *plan.Scene, step plan.Step) string {
	d := sc.Shard.Attached
	destination := sc.On(d)
	cuttingOver := destination.Attached() && destination.Conf.Mode == neon.AttachedMulti
	switch {
	case step.Kind == plan.Issue:
		if o, _ := sc.Origin(); o != 0 && sc.Shard.GenNode != d {
			return "reconciler-live-migrate-pre-generation-inc"
		}
		return beforeIssue
	case step.Kind == plan.CatchUp:
		return "reconciler-live-migrate-pre-await-lsn"
	case step.Kind != plan.Put:
	case step.Node == d && step.Conf.Mode == neon.AttachedMulti:
		return "reconciler-live-migrate-post-generation-inc"
	case step.Node == d && cuttingOver:
		return "reconciler-live-migrate-post-detach"
	case cuttingOver:
		return "reconciler-live-migrate-post-notify"
	}
	return ""
}

// epilogue is the place at the end of a reconcile that did something.
const epilogue = "reconciler-epilogue"
