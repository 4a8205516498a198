package storagecontroller

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/internal/app"
)

var errNotConfirmed = errors.New("not confirmed; nothing was changed")

// rescueFlags are the command line of a rescue.
type rescueFlags struct {
	dir, id, address *string
	yes, force       *bool
	output           *string
}

func newRescueCommand() *cobra.Command {
	var f rescueFlags
	var cmd *cobra.Command
	cmd = leaf("rescue", "Begin a new cluster from a replica whose cluster lost its majority", 0,
		func(ctx context.Context, _ []string) error {
			return rescue(ctx, f, cmd.InOrStdin(), os.Stdout, cmd.ErrOrStderr())
		})
	cmd.Long = "Begin a new cluster of one from what a replica has in --data-dir, when the\n" +
		"majority of its cluster is lost for good. The replica must not run.\n\n" +
		"All that is on its disk is kept: the newest snapshot and every entry of the log, also\n" +
		"those that are not known to be committed. Entries that only the lost replicas had are\n" +
		"lost. The generations of all shards jump ahead of what can have been issued. The cluster\n" +
		"gets a new id: replicas of the old one are refused, and stop when they hear of it. The\n" +
		"old content of the directory is kept beside the new one."
	f.dir = dataDirFlag(cmd)
	f.id = cmd.Flags().String("id", "", "new `id` of the replica (default: the one that it has)")
	f.address = cmd.Flags().String("raft-listen", "",
		"`host:port` of the replica (default: the one that the old membership has)")
	f.yes = cmd.Flags().Bool("yes", false, "do not ask")
	f.force = cmd.Flags().Bool("force", false,
		"also when the members that answer and this replica are a majority, or a member of another "+
			"cluster takes this replica for one of its own")
	f.output = outputFlag(cmd)
	return cmd
}

// outputFlag lets a command answer in JSON.
func outputFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("output", "o", "text", "`format` of the answer: text or json")
}

func checkOutput(format string) error {
	if format != "text" && format != "json" {
		return fmt.Errorf("%w: --output is text or json, not %q", errUsage, format)
	}
	return nil
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// rescue tells on asides what it is about to do, so that out has only the result.
func rescue(ctx context.Context, f rescueFlags, in io.Reader, out, asides io.Writer) error {
	if err := checkOutput(*f.output); err != nil {
		return err
	}
	r, err := app.OpenRescue(ctx, *f.dir)
	if err != nil {
		return err
	}
	defer r.Close()
	if !*f.force {
		if err := r.CheckOthersGone(ctx); err != nil {
			return fmt.Errorf("%w. Use --force only if you know that none of them was rescued, or "+
				"has the state", err)
		}
	}
	plan := r.Plan()
	describeRescue(asides, plan)
	if !*f.yes {
		if err := confirm(in, asides, plan.ClusterID); err != nil {
			return err
		}
	}
	done, err := r.Do(*f.id, *f.address)
	if err != nil {
		return err
	}
	if *f.output == "json" {
		return printJSON(out, done)
	}
	fmt.Fprintf(out, "rescued as server %s of the new cluster %s\n", done.NewServerID,
		done.NewClusterID)
	fmt.Fprintf(out, "the old content is in %s\n", done.Aside)
	warnExhausted(out, done.Exhausted)
	fmt.Fprintln(out, "Start the replica with its flags, then add empty replicas to it. "+
		"Save a snapshot at once.")
	return nil
}

// warnExhausted names the shards that can never be attached again.
func warnExhausted(w io.Writer, shards []string) {
	for _, id := range shards {
		fmt.Fprintf(w, "LOST: all generations of shard %s are used up; it can never be attached "+
			"again. Restore its data as another tenant.\n", id)
	}
}

func describeRescue(w io.Writer, p app.RescuePlan) {
	fmt.Fprintf(w, "server %s of cluster %s, in term %d\n", p.ServerID, p.ClusterID, p.Term)
	for _, m := range p.Members {
		fmt.Fprintf(w, "  member %s at %s\n", m.ID, m.RaftAddr)
	}
	fmt.Fprintf(w, "%d tenants, %d shards and %d pageservers, as of entry %d\n", p.Tenants,
		p.Shards, p.Nodes, p.LastIndex)
	if !p.LastEntry.IsZero() {
		fmt.Fprintf(w, "the newest entry is of %s, %s ago\n", p.LastEntry.UTC().Format(time.RFC3339),
			time.Since(p.LastEntry).Round(time.Second))
	}
	if p.Leader != "" && !p.LastContact.IsZero() {
		fmt.Fprintf(w, "the leader was %s, last heard of at %s\n", p.Leader,
			p.LastContact.UTC().Format(time.RFC3339))
	}
	if p.LastIndex > p.AppliedIndex {
		fmt.Fprintf(w, "Entries up to %d are known to be committed. Those from %d to %d may never "+
			"have been acknowledged to anybody; they are kept.\n", p.AppliedIndex, p.AppliedIndex+1,
			p.LastIndex)
	}
	if p.GoneBack {
		fmt.Fprintf(w, "THIS DISK HAS GONE BACK: it had entry %d and is an older copy.\n",
			p.AppliedIndex)
	}
	if p.TakenFor != "" {
		fmt.Fprintf(w, "THIS MAY BE THE WRONG STATE: %s.\n", p.TakenFor)
	}
	fmt.Fprintln(w, "LOST: every change that only the other members acknowledged, after the newest "+
		"entry here.\nIf another survivor has a newer entry, rescue that one instead.")
}

// confirm asks for the id of the cluster that ends.
func confirm(in io.Reader, out io.Writer, clusterID string) error {
	fmt.Fprintf(out, "This ends cluster %s for ever. Type its id to go on: ", clusterID)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if clusterID == "" || strings.TrimSpace(line) != clusterID {
		return errNotConfirmed
	}
	return nil
}
