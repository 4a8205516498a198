package storconcli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

// clusterCommands are about the replicas of the controller. Only Quorate has them.
type clusterCommands struct{ *session }

const membersPath = "control/v1/cluster/members"

func (s clusterCommands) group() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cluster", Short: "Show and change the replicas of the storage controller",
		RunE: func(_ *cobra.Command, args []string) error {
			usage := "storcon_cli --api <API> cluster <list|add|remove|replace|transfer>"
			if len(args) > 0 {
				return &usageError{
					msg: fmt.Sprintf("unrecognized subcommand '%s'", args[0]), usage: usage,
				}
			}
			return &usageError{
				msg:   "'cluster' requires a subcommand but one was not provided",
				usage: usage,
			}
		},
	}
	cmd.AddCommand(s.list(), s.add(), s.remove(), s.replace(), s.transfer())
	return cmd
}

// about makes a subcommand that takes arguments with the given names; a name in brackets
// need not be given.
func (s clusterCommands) about(
	name, short string, names []string, run func(ctx context.Context, args []string) error,
) *cobra.Command {
	var given []string
	cmd := s.leaf(name, short, func(ctx context.Context) error {
		return plain(run(ctx, given))
	})
	cmd.Use = strings.Join(append([]string{name}, names...), " ")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		least := len(names)
		for least > 0 && strings.HasPrefix(names[least-1], "[") {
			least--
		}
		if len(args) < least || len(args) > len(names) {
			return &usageError{
				msg:   fmt.Sprintf("%d arguments were given", len(args)),
				usage: "storcon_cli --api <API> cluster " + cmd.Use,
			}
		}
		given = append(args, make([]string, len(names)-len(args))...)
		return s.missing(cmd)
	}
	return cmd
}

// plain takes away what Neon's storcon_cli says before the text of every refusal: these
// have nothing to do with a pageserver.
func plain(err error) error {
	var e *apiError
	if !errors.As(err, &e) {
		return err
	}
	return &apiError{status: e.status, msg: strings.TrimPrefix(e.msg, "pageserver API: ")}
}

func (s clusterCommands) list() *cobra.Command {
	return s.leaf("list", "List the replicas as the one that is asked sees them",
		func(ctx context.Context) error {
			var view neon.Cluster
			if err := s.client.get(ctx, membersPath, &view); err != nil {
				return err
			}
			if !view.Current {
				s.out.warn("No leader confirms this list: it is what %s knows.", view.Server)
			}
			return s.out.result(view, func(k ink) string {
				text := memberTable(k, view.Members)
				for _, w := range view.Waiting {
					text += fmt.Sprintf("\n%s at %s waits to be added", w.ID, w.RaftAddr)
				}
				return text
			})
		})
}

func memberTable(k ink, members []neon.ClusterMember) string {
	g := grid{header: []string{
		"Id", "Raft", "Http", "Role", "Applied", "Lag", "State", "Last contact", "Disk", "Level",
		"Version", "Uptime",
	}}
	for _, m := range members {
		equality, disk := m.Equality, cmp.Or(m.DiskReason, m.Disk)
		if m.Equality == neon.MemberDiverged {
			equality = k.red(equality)
		}
		if m.Disk == neon.DiskUnhealthy {
			disk = k.red(disk)
		}
		g.add(m.ID, m.RaftAddr, m.HTTPAddr, m.Role, strconv.FormatUint(m.Applied, 10),
			strconv.FormatUint(m.Lag, 10), equality, m.LastContact, disk,
			strconv.FormatUint(m.Level, 10), m.Version, m.Uptime)
	}
	return g.render(k)
}

func (s clusterCommands) add() *cobra.Command {
	var standby bool
	cmd := s.about("add",
		"Add a replica that was started with --join; it need not say its Raft address again",
		[]string{"ID", "[HOST:PORT]"}, func(ctx context.Context, args []string) error {
			r := neon.MemberAdd{ID: args[0], RaftAddr: args[1], Standby: standby}
			return s.change(ctx, membersPath, r, "")
		})
	cmd.Flags().BoolVar(&standby, "standby", false, "It gets the state and no vote")
	return cmd
}

func (s clusterCommands) replace() *cobra.Command {
	return s.about("replace", "Add a replica, and once it has its vote remove another one",
		[]string{"OLD", "NEW", "[HOST:PORT]"}, func(ctx context.Context, args []string) error {
			path := membersPath + "/" + url.PathEscape(args[0]) + "/replace"
			r := neon.MemberAdd{ID: args[1], RaftAddr: args[2]}
			return s.change(ctx, path, r,
				fmt.Sprintf("\n%s is no member any more; stop it if it still runs", args[0]))
		})
}

// change adds a replica and says how it is started.
func (s clusterCommands) change(
	ctx context.Context, path string, r neon.MemberAdd, more string,
) error {
	var added neon.MemberAdded
	if err := s.client.call(ctx, exchange{
		method: http.MethodPost, path: path, body: r, answer: &added,
	}); err != nil {
		return err
	}
	if added.Note != "" {
		more += "\n" + added.Note
	}
	return s.out.sentence(added, "%s is a %s. It is started with: %s%s", added.ID, added.Role,
		strings.Join(added.Start, " "), more)
}

func (s clusterCommands) remove() *cobra.Command {
	return s.about("remove", "Remove a replica; the leader hands over first",
		[]string{"ID"}, func(ctx context.Context, args []string) error {
			path := membersPath + "/" + url.PathEscape(args[0])
			if err := s.client.delete(ctx, path); err != nil {
				return err
			}
			return s.out.sentence(map[string]string{"removed": args[0]},
				"%s is no member any more; stop it if it still runs", args[0])
		})
}

func (s clusterCommands) transfer() *cobra.Command {
	return s.about("transfer", "Hand leadership over, to the most up to date replica or to one",
		[]string{"[ID]"}, func(ctx context.Context, args []string) error {
			r := neon.LeaderTransfer{To: args[0]}
			if err := s.client.put(ctx, "control/v1/cluster/transfer", r); err != nil {
				return err
			}
			return s.out.sentence(r, "Leadership was handed over")
		})
}
