// Package storagecontroller is the body of the storage_controller command: it reads
// the command line, and runs a replica or talks to one that runs on this machine.
//
// It may decide nothing about tenants or the cluster. What a replica consists of is
// the business of package app.
package storagecontroller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"quorate/cluster"
	"quorate/internal/app"
	"quorate/internal/controlsocket"
	"quorate/internal/handover"
)

// The exit codes: 0 after a graceful stop, 1 after an error, 2 after a mistake
// on the command line, 3 if an import or export has found what is wrong.
const (
	exitError   = 1
	exitUsage   = 2
	exitBlocked = 3
)

// errUsage marks mistakes on the command line.
var errUsage = errors.New("usage")

// Seams are where a test program differs from the storage controller. The zero value
// is the storage controller.
type Seams struct {
	// Disk opens the log, the vote and the snapshots. Nil opens files in the data directory.
	Disk cluster.Disk

	// Machine puts something between the log and the state machine; nil: nothing.
	Machine func(cluster.Machine) cluster.Machine

	// ControlRoutes adds routes to the control socket; nil adds none.
	ControlRoutes func(*app.Replica) []controlsocket.Route
}

// Run runs the command with the arguments after its name, and returns the exit code.
func Run(args []string, seams Seams) int {
	// Signals are taken from the first moment on: one that arrives during the
	// start ends it as gracefully as later ones.
	ends := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) && os.Getenv("NOTIFY_SOCKET") == "" {
		// Not under nohup, nor under a service manager, for which it is a reload.
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	root := newRoot(seams)
	root.SetArgs(args)
	if len(args) == 0 {
		_ = root.Help()
		return exitUsage
	}
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		complain(fmt.Sprintf("error: %v\n\nFor more information, try '--help'.\n", err))
		return exitUsage
	case errors.Is(err, handover.ErrBlocked):
		complain(fmt.Sprintf("Error: %v\n", err))
		return exitBlocked
	default:
		complain(fmt.Sprintf("Error: %v\n", err))
		return exitError
	}
}

func newRoot(seams Seams) *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:           "storage_controller",
		Short:         "Places the shards of Neon tenants on pageservers, replicated with Raft",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          func(_ *cobra.Command, args []string) error { return noArguments(args) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.version {
				fmt.Fprintln(cmd.OutOrStdout(), version())
				return nil
			}
			return runReplica(cmd.Context(), f, seams)
		},
	}
	f.register(root.Flags())
	root.Flags().SortFlags = false
	root.SetFlagErrorFunc(func(
		_ *cobra.Command, err error,
	) error {
		return fmt.Errorf("%w: %w", errUsage, err)
	})
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newSnapshotCommand(), newMembersCommand(), newTransferCommand(),
		newRescueCommand(), newImportCommand(), newExportCommand())
	return root
}

func noArguments(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: unexpected argument %q", errUsage, args[0])
	}
	return nil
}
