package storconcli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

// operation is work on a node that takes the controller long.
type operation struct {
	name  string // in the path
	title string // in messages
	ended func(neon.NodeScheduling) bool
}

func drain() operation {
	return operation{"drain", "Drain", oneOf(neon.SchedulingActive, neon.SchedulingPauseForRestart)}
}

func fill() operation { return operation{"fill", "Fill", oneOf(neon.SchedulingActive)} }

func deletion() operation {
	return operation{
		"delete", "Delete",
		func(p neon.NodeScheduling) bool { return p != neon.SchedulingDeleting },
	}
}

func oneOf(all ...neon.NodeScheduling) func(neon.NodeScheduling) bool {
	return func(p neon.NodeScheduling) bool { return slices.Contains(all, p) }
}

// operationCommands start and cancel drains, fills and deletions.
type operationCommands struct{ *session }

func (s operationCommands) all() []*cobra.Command {
	return []*cobra.Command{
		s.startDelete(),
		s.cancel("node-cancel-delete",
			"Cancel the deletion of a pageserver and wait until it is; may be retried", deletion()),
		s.start(new(order), "start-drain",
			"Start draining a pageserver; done when its scheduling policy is pause_for_restart",
			drain()),
		s.cancel("cancel-drain",
			"Cancel draining a pageserver and wait until it is; may be retried", drain()),
		s.start(new(order), "start-fill",
			"Start filling a pageserver; done when its scheduling policy is active", fill()),
		s.cancel("cancel-fill", "Cancel filling a pageserver and wait until it is; may be retried",
			fill()),
		s.list(),
	}
}

// started is the document about an operation that was started.
type started struct {
	Node      neon.NodeID `json:"node_id"`
	Operation string      `json:"started"`
}

// cancelled is the document about an operation that was cancelled.
type cancelled struct {
	Node       neon.NodeID         `json:"node_id"`
	Operation  string              `json:"cancelled"`
	Scheduling neon.NodeScheduling `json:"scheduling"`
}

// order is how an operation is to be started.
type order struct {
	id                neon.NodeID
	force, concurrent bool
}

func (s operationCommands) begin(ctx context.Context, o *order, op operation) error {
	query := url.Values{}
	for name, set := range map[string]bool{"force": o.force, "concurrent": o.concurrent} {
		if set {
			query.Set(name, "true")
		}
	}
	target := url.URL{
		Path: fmt.Sprintf("control/v1/node/%s/%s", o.id, op.name), RawQuery: query.Encode(),
	}
	if err := s.client.put(ctx, target.String(), nil); err != nil {
		return err
	}
	return s.out.sentence(started{o.id, op.name}, "%s started for %s", op.title, o.id)
}

// start makes the command that starts an operation. Only Quorate knows --concurrent;
// Neon's controller ignores it.
func (s operationCommands) start(o *order, name, short string, op operation) *cobra.Command {
	cmd := s.leaf(name, short, func(ctx context.Context) error { return s.begin(ctx, o, op) })
	needNode(cmd, &o.id)
	cmd.Flags().BoolVar(&o.concurrent, "concurrent", false,
		"Also while other pageservers are drained, filled or deleted")
	return cmd
}

func (s operationCommands) startDelete() *cobra.Command {
	var o order
	cmd := s.start(&o, "node-start-delete", "Start the deletion of a pageserver", deletion())
	cmd.Flags().BoolVar(&o.force, "force", false,
		"Do not warm up secondaries before shards move: faster, but shards answer slowly until they are warm")
	return cmd
}

func (s operationCommands) cancel(name, short string, op operation) *cobra.Command {
	var id neon.NodeID
	var timeout neon.Duration
	cmd := s.leaf(name, short, func(ctx context.Context) error {
		if err := s.client.delete(ctx,
			fmt.Sprintf("control/v1/node/%s/%s", id, op.name)); err != nil {
			return err
		}
		s.out.remark("Waiting for node %s to quiesce on scheduling policy ...", id)
		policy, err := s.awaitPolicy(ctx, id, timeout, op.ended)
		if err != nil {
			return err
		}
		return s.out.sentence(cancelled{id, op.name, policy},
			"%s was cancelled for node %s. Schedulling policy is now %s", op.title, id, policy)
	})
	needNode(cmd, &id)
	need(cmd, "timeout", &timeout, neon.ParseDuration, "How long to wait, e.g. 30s")
	return cmd
}

var errDeadline = errors.New("deadline has elapsed")

// awaitPolicy asks for the policy of the node until it is one that the operation ends
// with. After the timeout it returns errDeadline.
func (s operationCommands) awaitPolicy(
	ctx context.Context, id neon.NodeID, timeout neon.Duration,
	ended func(neon.NodeScheduling) bool,
) (neon.NodeScheduling, error) {
	ctx, stop := context.WithTimeoutCause(ctx, time.Duration(timeout), errDeadline)
	defer stop()
	tick := time.NewTicker(s.env.PollEvery)
	defer tick.Stop()
	for {
		var node neon.NodeDescribe
		err := s.client.call(ctx,
			exchange{method: http.MethodGet, path: "control/v1/node/" + id.String(), answer: &node})
		switch {
		case errors.Is(context.Cause(ctx), errDeadline):
			return "", errDeadline
		case err != nil:
			return "", err
		case ended(node.Scheduling):
			return node.Scheduling, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}
