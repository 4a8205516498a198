package storagecontroller

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"quorate/cluster"
	"quorate/internal/app"
	"quorate/internal/atomicfile"
	"quorate/internal/controlsocket"
)

// dataDirFlag names the directory whose running replica a command talks to.
func dataDirFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("data-dir", defaultDataDir, "data `directory` of the replica")
}

// leaf makes a command without subcommands that takes exactly n arguments.
func leaf(
	use, short string, n int, run func(ctx context.Context, args []string) error,
) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != n {
				return fmt.Errorf("%w: want `%s`", errUsage, use)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) },
	}
}

// group makes a command that only has subcommands.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: unknown command %q of %s", errUsage, args[0], use)
			}
			return fmt.Errorf("%w: %s needs a subcommand", errUsage, use)
		},
	}
	cmd.AddCommand(subs...)
	return cmd
}

func newSnapshotCommand() *cobra.Command {
	return group("snapshot", "Save, inspect and restore the replicated state", newSaveCommand(),
		newInspectCommand(), newRestoreCommand())
}

func newSaveCommand() *cobra.Command {
	var dir, output *string
	var stale *bool
	cmd := leaf("save FILE", "Save the state of the replica that runs on --data-dir", 1,
		func(ctx context.Context, args []string) (err error) {
			if err := checkOutput(*output); err != nil {
				return err
			}
			mode := cluster.SaveNewest
			if *stale {
				mode = cluster.SaveStale
			}
			var info cluster.SnapshotInfo
			err = atomicfile.Write(args[0], func(w io.Writer) (err error) {
				info, err = controlsocket.Dial(*dir).Snapshot(ctx, mode, w)
				return err
			})
			switch {
			case err != nil:
				return fmt.Errorf("%s was not saved: %w", args[0], err)
			case *output == "json":
				return printJSON(os.Stdout, info)
			}
			fmt.Printf("saved %s: ", args[0])
			printSaved(os.Stdout, info)
			return nil
		})
	cmd.Long = "Save the state of the replica that runs on --data-dir, and say how old it is.\n\n" +
		"All that is on the replica's disk has to be in the state. Without a leader a replica\n" +
		"that was restarted does not know what was committed, so that its state is older: then\n" +
		"nothing is saved, unless --stale is given. `rescue` uses all that is on the disk."
	dir = dataDirFlag(cmd)
	stale = cmd.Flags().Bool("stale", false, "also when entries on the disk would be missing, or "+
		"another cluster has this replica as its member")
	output = outputFlag(cmd)
	return cmd
}

// printSaved says what a saved snapshot holds, and how old it is.
func printSaved(w io.Writer, s cluster.SnapshotInfo) {
	fmt.Fprintf(w, "cluster %s, entry %d of %d on the disk, term %d, %d bytes\n", s.ClusterID,
		s.Index, s.LastIndex, s.Term, s.StateSize)
	if s.Missing > 0 {
		fmt.Fprintf(w, "MISSING: %d changes that are on the disk, since they are not known to be "+
			"committed\n", s.Missing)
	}
	contact := "never since the replica was started"
	if !s.LastContact.IsZero() {
		contact = s.LastContact.Format(time.RFC3339)
	}
	switch {
	case s.Leader != "":
		fmt.Fprintf(w, "the leader is %s, last heard of at %s\n", s.Leader, contact)
	default:
		fmt.Fprintf(w, "NO LEADER: there may be newer changes elsewhere; last heard of one: %s\n",
			contact)
	}
}

func newInspectCommand() *cobra.Command {
	return leaf("inspect FILE", "Check a saved snapshot and tell what is in it", 1,
		func(_ context.Context, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			s, err := app.InspectSnapshot(f)
			if err != nil {
				return err
			}
			fmt.Printf("cluster      %s\nsaved        %s\nentry        %d of term %d\n",
				s.ClusterID, s.Created.Format(time.RFC3339), s.Index, s.Term)
			fmt.Printf("tenants      %d\nshards       %d\npageservers  %d\nrecoveries   %d\n",
				s.Tenants, s.Shards, s.Nodes, s.Epoch)
			printAge(os.Stdout, s.SnapshotInfo)
			for _, m := range s.Members {
				fmt.Printf("member       %s at %s\n", m.ID, m.RaftAddr)
			}
			return nil
		})
}

// printAge tells of a saved snapshot what makes it older than it seems.
func printAge(w io.Writer, s cluster.SnapshotInfo) {
	if s.Missing > 0 {
		fmt.Fprintf(w, "missing      %d changes up to entry %d\n", s.Missing, s.LastIndex)
	}
	if s.LastIndex > 0 && s.Leader == "" {
		fmt.Fprintln(w, "leader       none when it was saved")
	}
}

func newRestoreCommand() *cobra.Command {
	var dir, id, members, address, clusterID *string
	cmd := leaf("restore FILE", "Begin a new cluster from a saved snapshot, in an empty --data-dir",
		1, func(ctx context.Context, args []string) error {
			first, err := parseMembers(*members)
			if err != nil {
				return err
			}
			if len(first) == 0 {
				if *id == "" {
					*id = "restored"
				}
				first = []cluster.Member{{ID: *id, RaftAddr: *address}}
			} else if len(first) > 1 && *clusterID == "" {
				return fmt.Errorf("%w: a restore on several servers needs --cluster-id", errUsage)
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			done, err := app.RestoreSnapshot(ctx, f,
				cluster.Restore{DataDir: *dir, ID: *id, Members: first}, *clusterID)
			if err != nil {
				return err
			}
			fmt.Printf("restored as server %s of the new cluster %s\n", done.ServerID,
				done.ClusterID)
			fmt.Println(
				"Generations were raised above all that can have been issued since the snapshot was saved.")
			warnExhausted(os.Stdout, done.Exhausted)
			return nil
		})
	cmd.Long = "Begin a new cluster from a saved snapshot, in an empty --data-dir.\n\n" +
		"The generations of all shards jump ahead of what can have been issued since the\n" +
		"snapshot was saved. Use a snapshot only once: a second cluster begun from it would\n" +
		"issue the numbers of the first one again. Save a new one from the restored cluster."
	dir = dataDirFlag(cmd)
	clusterID = cmd.Flags().String("cluster-id", "",
		"`id` of the new cluster; the same on all --members (default: a new one)")
	id = cmd.Flags().String("server-id", "", "`id` of this replica")
	members = cmd.Flags().String("members", "",
		"`id=host:port,…` of the new cluster (default: this replica alone; the others join it)")
	address = cmd.Flags().String("raft-listen", "127.0.0.1:0",
		"`host:port` of this replica, when it is alone")
	return cmd
}
