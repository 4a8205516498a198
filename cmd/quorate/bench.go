package main

import (
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/testcluster/bench"
)

// newBenchFailoverCommand measures how long writes wait when leaders go.
func newBenchFailoverCommand() *cobra.Command {
	o, out := bench.FailoverOptions{}, output{}
	cmd := &cobra.Command{
		Use:   "bench-failover",
		Short: "Measure the time without acknowledged writes around kills, freezes, hanging disks, cut links and hand-overs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			describe(cmd, &o.Report)
			o.Out, o.Suite = out.progress(cmd), out.suite(cmd)
			run, err := bench.Failover(cmd.Context(), o)
			return out.measured(cmd, run, err)
		},
	}
	fs := cmd.Flags()
	out.flags(fs, &o.Report)
	fs.StringVar(&o.Controller, "controller", "bin/testcontroller",
		"`path` of testcontroller, whose disk can be made to hang")
	fs.StringVar(&o.Dir, "dir", "",
		"`directory` for data and logs, which are kept (default: a temporary one)")
	fs.IntVar(&o.Kills, "kills", 50, "leaders to kill with SIGKILL")
	fs.IntVar(&o.Freezes, "freezes", 10, "leaders to freeze with SIGSTOP")
	fs.IntVar(&o.Disks, "disks", 10, "leaders whose disk is made to hang")
	fs.IntVar(&o.HandOvers, "handovers", 20, "leaders to ask for stepping down")
	fs.IntVar(&o.Stops, "stops", 10, "leaders to stop with SIGTERM")
	fs.IntVar(&o.Cuts, "cuts", 10, "leaders to cut off from both others")
	fs.IntVar(&o.Links, "links", 5, "leaders to cut off from one other")
	fs.IntVar(&o.Rate, "rate", 200, "writes a second")
	fs.DurationVar(&o.Heavy, "heavy", time.Minute,
		"how long to count elections under heavy load; 1h for the whole proof")
	fs.IntVar(&o.HeavyClients, "heavy-clients", 64, "clients of the heavy load")
	fs.DurationVar(&o.RaftHeartbeat, "raft-heartbeat", 0,
		"heartbeat and election timeout of the controllers (default: theirs)")
	fs.IntVar(&o.Tenants, "tenants", 1000, "tenants that are written to")
	fs.IntVar(&o.TenantShards, "shards", 1, "shards of each tenant")
	fs.IntVar(&o.Pageservers, "pageservers", 3, "simulated pageservers")
	fs.StringVar(&o.PageserverFault, "pageserver-fault", "",
		"what one pageserver has all the time: dead, hanging or slow; each tenant has a location there")
	return cmd
}

// newBenchCommand measures requests, evacuations, restarts, memory and idling.
func newBenchCommand() *cobra.Command {
	o, out := bench.BenchOptions{}, output{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure requests, evacuations, restarts, memory and idling",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			describe(cmd, &o.Report)
			o.Out, o.Suite = out.progress(cmd), out.suite(cmd)
			run, err := bench.Run(cmd.Context(), o)
			return out.measured(cmd, run, err)
		},
	}
	fs := cmd.Flags()
	out.flags(fs, &o.Report)
	fs.StringVar(&o.Controller, "controller", "bin/storage_controller",
		"`path` of storage_controller")
	fs.StringVar(&o.Dir, "dir", "",
		"`directory` for data and logs, which are kept (default: a temporary one)")
	fs.StringSliceVar(&o.Only, "only", nil,
		"`parts` to measure, of "+strings.Join(bench.Parts(), ", ")+" (default: all)")
	fs.IntSliceVar(&o.Members, "members", []int{3, 1},
		"`numbers` of controllers of a cluster, each of which is measured")
	fs.IntVar(&o.Tenants, "tenants", bench.CrowdTenants,
		"tenants of 4 shards of most parts; fewer are for a short look")
	fs.IntVar(&o.Runs, "runs", 3, "repetitions of most parts; 20 for the whole proof")
	fs.IntVar(&o.Shards, "shards", 100000, "shards of the restart, memory and idle measurements")
	fs.IntVar(&o.Pageservers, "pageservers", 10, "simulated pageservers of the same")
	fs.IntSliceVar(&o.Sizes, "sizes", []int{1000, 10000, 100000},
		"`shards` of the clusters in which the cost of a change is measured")
	fs.IntVar(&o.Restarts, "restarts", 3, "restarts of each kind")
	fs.IntVar(&o.Kills, "kills", 10, "leaders to kill under load")
	fs.DurationVar(&o.Idle, "idle", time.Minute, "how long idling is watched")
	fs.DurationVar(&o.Reads, "reads", 5*time.Second, "how long each measurement of reads lasts")
	return cmd
}

// newBenchRemoteCommand measures reads of a cluster that exists.
func newBenchRemoteCommand() *cobra.Command {
	o, out := bench.RemoteOptions{}, output{}
	cmd := &cobra.Command{
		Use:   "bench-remote",
		Short: "Measure reads of a cluster that exists, which is not changed",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			describe(cmd, &o.Report)
			o.Suite = out.suite(cmd)
			run, err := bench.Remote(cmd.Context(), o)
			return out.measured(cmd, run, err)
		},
	}
	fs := cmd.Flags()
	out.flags(fs, &o.Report)
	fs.StringSliceVar(&o.Addresses, "remote-cluster", nil, "base `URLs` of its controllers")
	_ = cmd.MarkFlagRequired("remote-cluster") // the flag is there
	o.Token = os.Getenv("STORCON_TOKEN")
	fs.IntVar(&o.Clients, "clients", 32, "clients that read at once")
	fs.DurationVar(&o.Lasting, "reads", 5*time.Second, "how long each measurement lasts")
	return cmd
}
