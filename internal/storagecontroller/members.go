package storagecontroller

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"quorate/api/neon"
	"quorate/internal/controlsocket"
)

// memberFlags are the flags of a command about members.
type memberFlags struct {
	dir, output *string
}

func newMemberFlags(cmd *cobra.Command) memberFlags {
	return memberFlags{
		dir:    dataDirFlag(cmd),
		output: cmd.Flags().StringP("output", "o", "table", "`format`: table or json"),
	}
}

// client reaches the replica, once the flags make sense.
func (f memberFlags) client() (*controlsocket.Client, error) {
	if *f.output != "table" && *f.output != "json" {
		return nil, fmt.Errorf("%w: --output %q is neither table nor json", errUsage, *f.output)
	}
	return controlsocket.Dial(*f.dir), nil
}

// print prints a result as a document for programs, or as text for people.
func (f memberFlags) print(document any, text func(io.Writer)) error {
	if *f.output == "table" {
		text(os.Stdout)
		return nil
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(document)
}

func newMembersCommand() *cobra.Command {
	return group("members", "Show and change the membership of the cluster", newMembersList(),
		newMembersAdd(), newMembersRemove(), newMembersReplace())
}

func newMembersList() *cobra.Command {
	var f memberFlags
	cmd := leaf("list", "List the members as the replica on --data-dir sees them", 0,
		func(ctx context.Context, _ []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			view, err := client.Members(ctx)
			if err != nil {
				return err
			}
			return f.print(view, func(out io.Writer) { printMembers(out, view) })
		})
	f = newMemberFlags(cmd)
	return cmd
}

func newMembersAdd() *cobra.Command {
	var f memberFlags
	var standby *bool
	cmd := leaf("add ID HOST:PORT", "Add a replica; run it where the leader runs", 2,
		func(ctx context.Context, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			added, err := client.AddMember(ctx, neon.MemberAdd{
				ID: args[0], RaftAddr: args[1], Standby: *standby,
			})
			if err != nil {
				return err
			}
			return f.print(added, func(out io.Writer) { printAdded(out, added) })
		})
	cmd.Long = "Add a replica that was started with --join, at its Raft address. It gets the\n" +
		"state of the others, and then a vote."
	f = newMemberFlags(cmd)
	standby = cmd.Flags().Bool("standby", false, "without a vote")
	return cmd
}

func newMembersRemove() *cobra.Command {
	var f memberFlags
	cmd := leaf("remove ID", "Remove a replica; run it where the leader runs", 1,
		func(ctx context.Context, args []string) error {
			client, err := f.client()
			if err == nil {
				err = client.RemoveMember(ctx, args[0])
			}
			if err != nil {
				return err
			}
			return f.print(map[string]string{"removed": args[0]}, func(out io.Writer) {
				fmt.Fprintf(out, "%s is no member any more; stop it if it still runs\n", args[0])
			})
		})
	f = newMemberFlags(cmd)
	return cmd
}

func newMembersReplace() *cobra.Command {
	var f memberFlags
	cmd := leaf("replace OLD NEW HOST:PORT",
		"Add a replica, and then remove another one; run it where the leader runs", 3,
		func(ctx context.Context, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			added, err := client.ReplaceMember(ctx, args[0],
				neon.MemberAdd{ID: args[1], RaftAddr: args[2]})
			if err != nil {
				return err
			}
			return f.print(added, func(out io.Writer) {
				printAdded(out, added)
				fmt.Fprintf(out, "%s is no member any more; stop it if it still runs\n", args[0])
			})
		})
	f = newMemberFlags(cmd)
	return cmd
}

func newTransferCommand() *cobra.Command {
	var f memberFlags
	var to *string
	cmd := leaf("transfer-leader", "Hand leadership over; run it where the leader runs", 0,
		func(ctx context.Context, _ []string) error {
			client, err := f.client()
			if err == nil {
				err = client.TransferLeadership(ctx, *to)
			}
			if err != nil {
				return err
			}
			return f.print(neon.LeaderTransfer{To: *to}, func(out io.Writer) {
				fmt.Fprintln(out, "Leadership was handed over")
			})
		})
	f = newMemberFlags(cmd)
	to = cmd.Flags().String("to", "", "`id` of the successor (default: the most up to date member)")
	return cmd
}

func printMembers(out io.Writer, view neon.Cluster) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tRAFT\tHTTP\tROLE\tAPPLIED\tLAG\tSTATE\tLEVEL\tLAST CONTACT\tDISK\t"+
		"VERSION\tUPTIME")
	for _, m := range view.Members {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%d\t%s\t%s\t%s\t%s\n", m.ID, m.RaftAddr,
			m.HTTPAddr, m.Role, m.Applied, m.Lag, m.Equality, m.Level, m.LastContact,
			cmp.Or(m.DiskReason, m.Disk), m.Version, m.Uptime)
	}
	_ = w.Flush()
	for _, a := range view.Waiting {
		fmt.Fprintf(out, "%s at %s waits to be added\n", a.ID, a.RaftAddr)
	}
	if !view.Current {
		fmt.Fprintln(out, "No leader confirms this list: it is what this replica knows.")
	}
}

func printAdded(out io.Writer, added neon.MemberAdded) {
	fmt.Fprintf(out, "%s is a %s. It is started with: %s\n", added.ID, added.Role,
		strings.Join(added.Start, " "))
	if added.Note != "" {
		fmt.Fprintln(out, added.Note)
	}
}
