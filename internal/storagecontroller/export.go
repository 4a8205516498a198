package storagecontroller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/cluster"
	"quorate/internal/app"
	"quorate/internal/controlsocket"
	"quorate/internal/handover"
	"quorate/internal/neondb"
	"quorate/internal/neonstate"
)

// exportFlags are the command line of an export.
type exportFlags struct {
	to, snapshot, dir, output                  string
	copied, overwrite, plan, stopped, anywhere bool
	accept                                     []string
}

func newExportCommand() *cobra.Command {
	f := &exportFlags{}
	var cmd *cobra.Command
	cmd = leaf("export", "Write the state into a PostgreSQL for an existing controller", 0,
		func(ctx context.Context, _ []string) error { return f.run(ctx, cmd.OutOrStdout()) })
	cmd.Long = "Write the state into a PostgreSQL database, as Neon's existing storage controller\n" +
		"keeps it, in one transaction. docs/guides/moving-out.md goes through it.\n\n" +
		"The state comes from --data-dir of a replica. All replicas have to be stopped: the\n" +
		"existing controller leads from then on, and two must not. With --copy the cluster goes\n" +
		"on: what is written is fenced, and no controller can lead on it. --snapshot takes a\n" +
		"saved file instead, with --copy, or with --stopped if its cluster is no more.\n\n" +
		"Exit codes: 0 done, 1 error, 2 command line, 3 something is wrong and not accepted."
	fs := cmd.Flags()
	fs.StringVar(&f.to, "to", os.Getenv("DATABASE_URL"),
		"`URL` of the database, postgres://… (env DATABASE_URL)")
	fs.Lookup("to").DefValue = ""
	fs.StringVar(&f.dir, "data-dir", "", "data `directory` of a replica")
	fs.StringVar(&f.snapshot, "snapshot", "", "saved `file` instead of a directory")
	fs.BoolVar(&f.copied, "copy", false, "the cluster goes on")
	fs.BoolVar(&f.stopped, "stopped", false, "the cluster of --snapshot is no more")
	fs.BoolVar(&f.overwrite, "overwrite", false,
		"also into the database that the state was taken from, or into a copy")
	fs.BoolVar(&f.anywhere, "any-replica", false,
		"also from a replica that did not lead last, whose disk may have less")
	fs.BoolVar(&f.plan, "plan", false, "write nothing, and report")
	fs.StringSliceVar(&f.accept, "accept", nil, "`codes` of wrong things to go on with")
	fs.StringVarP(&f.output, "output", "o", "text", "`format` of the answer: text or json")
	return cmd
}

func (f *exportFlags) run(ctx context.Context, out io.Writer) error {
	switch {
	case f.to == "":
		return fmt.Errorf("%w: --to or DATABASE_URL names the database", errUsage)
	case (f.dir == "") == (f.snapshot == ""):
		return fmt.Errorf("%w: give --data-dir or --snapshot", errUsage)
	case f.snapshot != "" && f.copied == f.stopped:
		return fmt.Errorf("%w: a snapshot does not say whether its cluster goes on: give --copy, "+
			"or --stopped if it never will", errUsage)
	}
	if err := checkOutput(f.output); err != nil {
		return err
	}
	e, done, err := f.source(ctx)
	if err != nil {
		return err
	}
	defer done()
	for _, code := range f.accept {
		e.Accept = append(e.Accept, neonstate.Code(code))
	}
	db, err := neondb.Open(ctx, f.to)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	e.Database = db
	takeBack := func() {}
	if f.dir != "" && !f.copied && !f.plan {
		if takeBack, err = noteExported(f.dir, e.Now); err != nil {
			return err
		}
	}
	w, err := e.Do(ctx)
	if nothingWritten(err) {
		takeBack()
	}
	if w != nil {
		if err := f.print(out, w); err != nil {
			return err
		}
	}
	if err != nil || f.output == "json" || f.plan {
		return err
	}
	if f.copied {
		fmt.Fprintln(out, "\nWritten as a copy: no controller can lead on it.")
		return nil
	}
	fmt.Fprintln(out, "\nWritten. Generations have jumped. Start the existing controller, and never "+
		"the replicas again: remove their data directories.")
	return nil
}

// source reads the state. A directory stays locked until done is called, so that no replica
// starts on it meanwhile.
func (f *exportFlags) source(ctx context.Context) (e handover.Export, done func(), err error) {
	e = handover.Export{
		Copy: f.copied, Overwrite: f.overwrite, Plan: f.plan, Now: time.Now(),
	}
	if f.snapshot != "" {
		file, err := os.Open(f.snapshot)
		if err != nil {
			return e, nil, err
		}
		defer file.Close()
		state, info, err := app.ReadState(file)
		e.State, e.Source = state, info.ClusterID
		return e, func() {}, err
	}
	r, err := app.OpenRescue(ctx, f.dir)
	switch {
	case errors.Is(err, cluster.ErrDataDirInUse) && f.copied:
		return f.running(ctx, e)
	case errors.Is(err, cluster.ErrDataDirInUse):
		return e, nil, fmt.Errorf("%w: stop all replicas, or write a copy with --copy", err)
	case err != nil:
		return e, nil, err
	}
	if !f.copied {
		if err := f.final(ctx, r); err != nil {
			r.Close()
			return e, nil, err
		}
	}
	e.State, e.Source = r.State(), r.Plan().ClusterID
	return e, r.Close, nil
}

// final makes sure that nothing leads any more, and that the newest state is here.
func (f *exportFlags) final(ctx context.Context, r *app.Rescue) error {
	if err := r.CheckOthersGone(ctx); err != nil {
		return err
	}
	if f.anywhere {
		return nil
	}
	return newest(r.Plan().SurvivorInfo)
}

// newest makes sure that a disk has all that was acknowledged.
func newest(p cluster.SurvivorInfo) error {
	switch {
	case p.GoneBack:
		return errors.New("this disk has gone back to an older state: export from another replica, " +
			"or say --any-replica")
	case p.Leader == "" && len(p.Members) > 1:
		return errors.New("this disk does not say who led last: export from the replica that led, " +
			"which you have stopped last, and say --any-replica")
	case p.Leader != "" && p.Leader != p.ServerID:
		return fmt.Errorf("%s led last, and this is %s: what only the others have would be lost; "+
			"export from %s, or say --any-replica", p.Leader, p.ServerID, p.Leader)
	}
	return nil
}

// running reads the state of a replica that runs.
func (f *exportFlags) running(
	ctx context.Context, e handover.Export,
) (handover.Export, func(), error) {
	var b bytes.Buffer
	info, err := controlsocket.Dial(f.dir).Snapshot(ctx, cluster.SaveNewest, &b)
	if err != nil {
		return e, nil, err
	}
	e.Source = info.ClusterID
	e.State, _, err = app.ReadState(&b)
	return e, func() {}, err
}

func (f *exportFlags) print(out io.Writer, w *handover.Written) error {
	if f.output == "json" {
		return printJSON(out, w)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "tenants      %d\nshards       %d\npageservers  %d\nsafekeepers  %d, owing %d operations\n",
		w.Tenants, w.Shards, w.Pageservers, w.Safekeepers, w.Operations)
	fmt.Fprintf(&b, "timelines    %d on safekeepers, %d being imported\n", w.Timelines, w.Imports)
	writeFindings(&b, "", w.Findings)
	if len(w.Blocking) > 0 {
		fmt.Fprintf(&b, "\nNothing is written while this is wrong: %v\n", w.Blocking)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
