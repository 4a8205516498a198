package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"quorate/internal/atomicfile"
	"quorate/internal/report"
	"quorate/internal/results"
	"quorate/testcluster/bench"
)

// The forms of a result.
const (
	formatText      = "text"
	formatJSON      = "json"
	formatBenchstat = "benchstat"
)

// output says what becomes of a run.
type output struct {
	format string
	dir    string
	html   string
}

func (o *output) flags(fs *pflag.FlagSet, r *bench.Report) {
	fs.StringVarP(&o.format, "output", "o", formatText,
		"`form` of what is printed: text, json or benchstat")
	fs.StringVar(&o.dir, "out-dir", "",
		"`directory` that gets the run as JSON, in a file of its own")
	fs.StringVar(&o.html, "html", "", "`file` that gets a report with plots")
	platform := os.Getenv("PLATFORM")
	if platform == "" {
		platform = "local"
	}
	fs.StringVar(&r.Platform, "platform", platform,
		"`name` of the kind of machine, by which results are told apart (env PLATFORM)")
	fs.StringVar(&r.Revision, "revision", os.Getenv("GITHUB_SHA"),
		"`commit` of the controller, for binaries that do not tell (env GITHUB_SHA)")
	fs.StringVar(&r.Against, "against", "",
		"`path` of another controller, which is measured in turn with the first")
	fs.IntVar(&r.Rounds, "rounds", 4, "rounds of both with --against")
}

// check refuses what cannot be done, before anything is measured.
func (o *output) check() error {
	switch o.format {
	case formatText, formatJSON, formatBenchstat:
		return nil
	}
	return fmt.Errorf("--output %q is none of %s, %s and %s", o.format, formatText, formatJSON,
		formatBenchstat)
}

// describe says in the run how it came about.
func describe(cmd *cobra.Command, r *bench.Report) {
	r.Command = "quorate " + strings.Join(os.Args[1:], " ")
	r.Settings = map[string]string{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "help", "output", "out-dir", "html", "dir", "platform", "controller", "against",
			"revision":
		default:
			r.Settings[f.Name] = f.Value.String()
		}
	})
}

// progress is where it is told what is being done.
func (o *output) progress(cmd *cobra.Command) io.Writer {
	if o.format == formatText {
		return cmd.OutOrStdout()
	}
	return cmd.ErrOrStderr()
}

// suite prints a part as soon as it was measured, for people.
func (o *output) suite(cmd *cobra.Command) func(results.Suite) {
	if o.format != formatText {
		return nil
	}
	return func(s results.Suite) { s.WriteTable(cmd.OutOrStdout()) }
}

// measured prints a run, keeps it, and says whether all of it is as it should be. What was
// measured before an error is kept too.
func (o *output) measured(cmd *cobra.Command, run *results.Run, err error) error {
	out := cmd.OutOrStdout()
	switch {
	case len(run.Suites) == 0 && len(run.Drawings) == 0:
		return err
	case o.format == formatJSON:
		if e := run.WriteJSON(out); e != nil {
			return e
		}
	case o.format == formatBenchstat:
		if e := run.WriteBenchstat(out); e != nil {
			return e
		}
	default:
		run.WriteGoals(out)
		fmt.Fprintln(out, run.About())
	}
	if e := errors.Join(o.keep(run), writeReport(o.html, run)); e != nil {
		return errors.Join(err, e)
	}
	if err == nil && run.Missed() > 0 {
		err = fmt.Errorf("%d of the results: %w", run.Missed(), bench.ErrMissed)
	}
	return err
}

// writeReport writes a report about runs; no name means none.
func writeReport(name string, runs ...*results.Run) error {
	if name == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(name, func(to io.Writer) error { return report.Write(to, runs...) })
}

func (o *output) keep(run *results.Run) error {
	if o.dir == "" {
		return nil
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(o.dir, run.FileName()), run.WriteJSON)
}
