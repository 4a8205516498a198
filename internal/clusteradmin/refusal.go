package clusteradmin

import (
	"errors"
	"strings"

	"quorate/api/neon"
	"quorate/cluster"
)

// refusals give the errors of package cluster a class, and a code for programs.
var refusals = []struct {
	is     error
	class  neon.Code
	reason string
}{
	{cluster.ErrNotLeader, neon.NotLeader, "not_leader"},
	{cluster.ErrOutcomeUnknown, neon.OutcomeUnknown, "outcome_unknown"},
	{cluster.ErrClosed, neon.ShuttingDown, "shutting_down"},
	{cluster.ErrNotEmpty, neon.PreconditionFailed, "not_empty"},
	{cluster.ErrClusterMismatch, neon.PreconditionFailed, "foreign_cluster"},
	{cluster.ErrOtherServer, neon.PreconditionFailed, "other_server"},
	{cluster.ErrRefused, neon.PreconditionFailed, "refused"},
	{cluster.ErrNoMajority, neon.PreconditionFailed, "no_majority"},
	{cluster.ErrLastVoter, neon.PreconditionFailed, "last_voter"},
	{cluster.ErrTooManyMembers, neon.PreconditionFailed, "too_many_members"},
	{cluster.ErrPeerUnreachable, neon.PreconditionFailed, "unreachable"},
	{cluster.ErrUnknownMember, neon.NotFound, "unknown_member"},
}

// waysOut say what an operator does about an error whose text does not.
var waysOut = map[string]string{
	"foreign_cluster": "that server is of another cluster. Check the address; to move it " +
		"here, stop it and start it on an empty --data-dir",
	"other_server": "check the id and the address; `cluster list` has those of the members",
	"refused": "a server that lost its disk, or that uses the id of one, needs an id of its " +
		"own: remove the old one, and add the server under a new --server-id",
}

// refusal gives an error a class.
func (a *Admin) refusal(err error) error {
	if err == nil || neon.CodeOf(err) != neon.Internal {
		return err
	}
	for _, r := range refusals {
		if !errors.Is(err, r.is) {
			continue
		}
		text := strings.ReplaceAll(err.Error(), "cluster: ", "")
		if way := waysOut[r.reason]; way != "" {
			text += "; " + way
		}
		return &neon.Error{Code: r.class, Reason: r.reason, Msg: text, Err: err}
	}
	class := neon.Classify(err)
	if class == neon.Internal {
		class = neon.Conflict // another change, as a rule
	}
	return &neon.Error{Code: class, Msg: err.Error(), Err: err}
}

func reasoned(class neon.Code, reason, format string, args ...any) error {
	e := neon.Errorf(class, format, args...)
	e.Reason = reason
	return e
}

// mayHaveActed reports whether a part of a change may be done in spite of its error.
func mayHaveActed(err error) bool {
	return errors.Is(err, cluster.ErrNotLeader) || errors.Is(err, cluster.ErrOutcomeUnknown)
}

// startFirst tells how a server is started that did not answer, or was the wrong one.
func (a *Admin) startFirst(err error, m cluster.Member) error {
	var e *neon.Error
	if !errors.As(err, &e) || e.Reason != "unreachable" && e.Reason != "not_empty" {
		return err
	}
	out := *e
	out.Msg += ". Start it with: " + strings.Join(a.startFlags(m), " ") +
		", an empty --data-dir, and otherwise as the other members; then repeat this command"
	return &out
}
