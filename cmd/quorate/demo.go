package main

import (
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"quorate/testcluster/demo"
)

// newDemoCommand plays the show: a pageserver dies, then the leader.
func newDemoCommand() *cobra.Command {
	opt := demo.Options{Out: os.Stdout, PostgresDir: os.Getenv("POSTGRES_DISTRIB_DIR")}
	var once bool
	cmd := &cobra.Command{
		Use: "demo", Short: "Kill a pageserver, then the leader, and watch", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !once {
				opt.Stay = cmd.Context().Done()
			}
			if term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" &&
				os.Getenv("TERM") != "dumb" {
				opt.Style = demo.Table
			}
			return demo.Run(cmd.Context(), opt)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opt.Binary, "controller", besideUs("storage_controller"),
		"the storage_controller `binary`")
	flags.StringVar(&opt.NeonBin, "neon-bin", os.Getenv("NEON_BIN"),
		"`directory` with pageserver and storage_broker, to use real ones (env NEON_BIN)")
	flags.StringVar(&opt.Dir, "dir", "", "`directory` in which one for data and logs is made (default: that of temporary files)")
	flags.IntVar(&opt.Tenants, "tenants", 0,
		"number of tenants (default 200, or 12 with real pageservers)")
	flags.IntVar(&opt.Shards, "shards", 0,
		"shards of each tenant (default 4, or 2 with real pageservers)")
	flags.BoolVar(&once, "once", os.Getenv("ONCE") != "" && os.Getenv("ONCE") != "0",
		"exit after the show (env ONCE=1)")
	return cmd
}
