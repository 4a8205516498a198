// Command quorate plays the show of `make run`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"quorate/testcluster/demo"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	opt := demo.Options{Out: os.Stdout, NeonBin: os.Getenv("NEON_BIN"), PostgresDir: os.Getenv("POSTGRES_DISTRIB_DIR")}
	flags := pflag.NewFlagSet("quorate", pflag.ContinueOnError)
	flags.StringVar(&opt.Binary, "binary", besideUs("storage_controller"), "the storage_controller to `run`")
	flags.StringVar(&opt.Dir, "dir", "", "`directory` for data and logs (default: a temporary one)")
	flags.IntVar(&opt.Tenants, "tenants", 0, "number of tenants (default 200, or 12 with NEON_BIN)")
	flags.IntVar(&opt.Shards, "shards", 0, "shards of each tenant (default 4, or 2 with NEON_BIN)")
	once := flags.Bool("once", os.Getenv("ONCE") != "" && os.Getenv("ONCE") != "0", "exit after the show (env ONCE=1)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return 0
		}
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if !*once {
		opt.Stay = ctx.Done()
	}
	if term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		opt.Style = demo.Table
	}
	if err := demo.Run(ctx, opt); err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		return 1
	}
	return 0
}

// besideUs finds a program in the directory of this one.
func besideUs(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}
