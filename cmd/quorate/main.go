// Command quorate shows and measures a cluster, and puts the storage controller beside
// neon_local: the show of `make run`, and the
// figures of `make bench` and `make bench-failover`, which it keeps in a database.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		return 1
	}
	return 0
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "quorate", Short: "Show and measure a cluster", SilenceUsage: true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newDemoCommand(), newBenchCommand(), newBenchFailoverCommand(),
		newBenchRemoteCommand(), newResultsCommand(), newNeonLocalCommand())
	return root
}

// besideUs finds a program in the directory of this one.
func besideUs(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}
