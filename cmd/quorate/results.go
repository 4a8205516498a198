package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"quorate/internal/results"
	"quorate/internal/resultsdb"
)

// errRegressed is met when a ratio got worse.
var errRegressed = errors.New("a ratio got worse by more than 10 %")

// errNoRatios is met when there is nothing to compare.
var errNoRatios = errors.New("it has no ratio: it was not measured with --against")

// kept are the flags of all commands about results.
type kept struct {
	url   string
	which resultsdb.Which
}

// with calls f with the database.
func (k *kept) with(ctx context.Context, f func(*resultsdb.DB) error) (err error) {
	d, err := resultsdb.Open(ctx, k.url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return f(d)
}

// newResultsCommand keeps results in a database and follows them.
func newResultsCommand() *cobra.Command {
	k := &kept{}
	cmd := &cobra.Command{
		Use: "results", Short: "Keep the results of benchmarks in a database and follow them",
		Args: cobra.NoArgs,
	}
	url := os.Getenv("DATABASE_URL")
	if url == "" {
		url = "results.db"
	}
	cmd.PersistentFlags().StringVar(&k.url, "database", url,
		"`URL` of the database: postgres://…, or the name of a file of SQLite (env DATABASE_URL)")
	cmd.PersistentFlags().StringVar(&k.which.Platform, "platform", "", "only of this `platform`")
	cmd.AddCommand(newIngestCommand(k), newListCommand(k), newCompareCommand(k),
		newRegressionsCommand(k), newReportCommand(k))
	return cmd
}

func newIngestCommand(k *kept) *cobra.Command {
	return &cobra.Command{
		Use: "ingest FILE…", Short: "Take in runs, from files or directories of them",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return k.with(cmd.Context(), func(d *resultsdb.DB) error {
				for _, arg := range args {
					if err := ingest(cmd, d, arg); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// ingest takes in one file, or all of a directory.
func ingest(cmd *cobra.Command, d *resultsdb.DB, root string) error {
	return filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || name != root && filepath.Ext(name) != ".json" {
			return err
		}
		run, err := openRun(name)
		if err != nil {
			return err
		}
		fresh, err := d.Ingest(cmd.Context(), run)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		what := "taken in"
		if !fresh {
			what = "there already"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: run %s, %s\n", name, run.ID()[:8], what)
		return err
	})
}

func newListCommand(k *kept) *cobra.Command {
	w := &k.which
	cmd := &cobra.Command{
		Use: "list [NAME]", Short: "List runs, or what they have found of one result",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return k.with(cmd.Context(), func(d *resultsdb.DB) error {
				if len(args) == 1 {
					w.Name = args[0]
				}
				list, err := d.List(cmd.Context(), *w)
				if err != nil {
					return err
				}
				t := newTable()
				if w.Name == "" {
					listRuns(t, list)
				} else if err := listResults(cmd.Context(), d, t, list, w.Name); err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), t.Render())
				return err
			})
		},
	}
	cmd.Flags().StringVar(&w.Run, "commit", "", "only of this `commit`, or the run of this id")
	cmd.Flags().IntVar(&w.Limit, "limit", 20, "at most so many runs, the newest ones")
	return cmd
}

func newTable() table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	return t
}

func shortly(commit string) string { return commit[:min(len(commit), 10)] }

func listRuns(t table.Writer, list []resultsdb.Listed) {
	t.AppendHeader(table.Row{
		"run", "time", "commit", "platform", "results", "missed", "against", "command",
	})
	for _, l := range list {
		commit := shortly(l.Revision)
		if l.Modified {
			commit += "+"
		}
		if l.RemoteCluster {
			l.Platform += " (remote cluster)"
		}
		t.AppendRow(table.Row{
			l.ID[:8], l.Time.Format(time.DateTime), commit, l.Platform, l.Results, l.Missed,
			shortly(l.Against), l.Command,
		})
	}
}

func listResults(
	ctx context.Context, d *resultsdb.DB, t table.Writer, list []resultsdb.Listed, name string,
) error {
	t.AppendHeader(table.Row{
		"run", "time", "commit", "platform", "labels", "n", "min", "median", "p99", "max", "noise",
	})
	for _, l := range list {
		run, err := d.Newest(ctx, resultsdb.Which{Run: l.ID})
		if err != nil {
			return err
		}
		for _, s := range run.Suites {
			for _, r := range s.Data {
				if r.Name != name {
					continue
				}
				t.AppendRow(table.Row{
					l.ID[:8], l.Time.Format(time.DateTime), shortly(l.Revision), l.Platform,
					r.LabelText(), r.N, results.Format(r.Min, r.Unit),
					results.Format(r.Median, r.Unit), results.Format(r.P99, r.Unit),
					results.Format(r.Max, r.Unit), s.Noise,
				})
			}
		}
	}
	return nil
}

func newCompareCommand(k *kept) *cobra.Command {
	return &cobra.Command{
		Use:   "compare BEFORE AFTER",
		Short: "Compare the newest runs of two commits, or two runs by their ids or files",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return k.with(cmd.Context(), func(d *resultsdb.DB) error {
				var runs [2]*results.Run
				for i, arg := range args {
					var err error
					if runs[i], err = k.find(cmd.Context(), d, arg); err != nil {
						return err
					}
				}
				return results.WriteComparison(cmd.OutOrStdout(), runs[0], runs[1])
			})
		},
	}
}

// find finds a run by its commit, its id or its file.
func (k *kept) find(ctx context.Context, d *resultsdb.DB, arg string) (*results.Run, error) {
	if strings.HasSuffix(arg, ".json") {
		return openRun(arg)
	}
	w := k.which
	w.Run = arg
	return d.Newest(ctx, w)
}

func newReportCommand(k *kept) *cobra.Command {
	var html string
	cmd := &cobra.Command{
		Use:   "report RUN…",
		Short: "Write a page with tables and plots about runs: commits, ids or files",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return k.with(cmd.Context(), func(d *resultsdb.DB) error {
				var runs []*results.Run
				for _, arg := range args {
					run, err := k.find(cmd.Context(), d, arg)
					if err != nil {
						return err
					}
					runs = append(runs, run)
				}
				return writeReport(html, runs...)
			})
		},
	}
	cmd.Flags().StringVar(&html, "html", "report.html", "`file` that gets the page")
	return cmd
}

func newRegressionsCommand(k *kept) *cobra.Command {
	var names []string
	cmd := &cobra.Command{
		Use:   "regressions",
		Short: "Fail when a ratio of the newest run got worse by more than 10 %",
		Long: `Fail when a ratio of the newest run got worse by more than 10 %.

A ratio is compared with that of the newest earlier run of another commit on the same
platform, beside the same other binary, or with 1 where there is none. Every round of it must
be worse by more than 5 %.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return k.with(cmd.Context(), func(d *resultsdb.DB) error {
				run, err := d.Newest(cmd.Context(), k.which)
				if err != nil {
					return err
				}
				if run.CountRatios() == 0 {
					return fmt.Errorf("run %s of %s: %w", run.ID()[:8], shortly(run.Revision),
						errNoRatios)
				}
				found, err := d.Regressions(cmd.Context(), run)
				if err != nil {
					return err
				}
				found = only(found, names)
				for _, r := range found {
					fmt.Fprintln(cmd.OutOrStdout(), r)
				}
				if len(found) > 0 {
					return fmt.Errorf("%d results: %w", len(found), errRegressed)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "run %s of %s: %d ratios, none got worse\n",
					run.ID()[:8], shortly(run.Revision), run.CountRatios())
				return err
			})
		},
	}
	cmd.Flags().StringSliceVar(&names, "result", nil,
		"`names` of the results to look at, such as locate.cpu (default: all)")
	cmd.Flags().StringVar(&k.which.Run, "commit", "", "of this `commit`, or the run of this id")
	return cmd
}

// only keeps the regressions of some results; no name means all.
func only(found []results.Regression, names []string) []results.Regression {
	return slices.DeleteFunc(found, func(r results.Regression) bool {
		return len(names) > 0 && !slices.Contains(names, r.Of())
	})
}
