package reconciler

import (
	"quorate/api/neon"
	"quorate/internal/failpoint"
	"quorate/reconciler/plan"
)

// beforeIssue is the place before a generation is asked for.
const beforeIssue = "reconciler-pre-increment-generation"

// issueSeparately reports whether to number attachments one by one although many
// could be numbered in one entry: a test wants to hold them in between.
func issueSeparately(f failpoint.Points) bool {
	return f != nil && f.Armed(beforeIssue)
}

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
