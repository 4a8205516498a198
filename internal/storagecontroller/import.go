package storagecontroller

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/internal/atomicfile"
	"quorate/internal/handover"
	"quorate/internal/jsonhttp"
	"quorate/internal/neondb"
	"quorate/internal/neonstate"
	"quorate/internal/pageserver"
)

// movedAddress stands as the leader in a database that was taken, unless another is given.
// Nobody answers there.
const movedAddress = "http://moved-to-quorate.invalid/"

// importFlags are the command line of an import.
type importFlags struct {
	from, snapshot, address, output        string
	plan, follow, cutOver, abort           bool
	stopped, unused, pageservers, useHTTPS bool
	unchecked                              bool
	again                                  bool
	accept                                 []string
	token, peerToken, caFile               string
	every                                  time.Duration
}

func newImportCommand() *cobra.Command {
	f := &importFlags{}
	var cmd *cobra.Command
	cmd = leaf("import", "Take the state over from an existing controller's PostgreSQL", 0,
		func(ctx context.Context, _ []string) error { return f.run(ctx, cmd.OutOrStdout()) })
	cmd.Long = "Take the state over from Neon's existing storage controller, whose state is in\n" +
		"PostgreSQL. docs/guides/moving-in.md goes through it.\n\n" +
		"--plan reads only, and says what is taken, what has no counterpart and what is wrong.\n" +
		"--cut-over makes the existing controller step down, takes its database, and writes a\n" +
		"snapshot that `snapshot restore` founds a cluster from. Run it again after a crash;\n" +
		"--again when the snapshot may be there already.\n" +
		"--abort hands the database back, unless a cluster was founded.\n" +
		"--follow tells what changes while the existing controller works.\n\n" +
		"Exit codes: 0 done, 1 error, 2 command line, 3 something is wrong and not accepted."
	fs := cmd.Flags()
	fs.StringVar(&f.from, "from", os.Getenv("DATABASE_URL"),
		"`URL` of the database, postgres://… (env DATABASE_URL)")
	fs.BoolVar(&f.plan, "plan", false, "read only, and report (default)")
	fs.BoolVar(&f.cutOver, "cut-over", false, "take over, and write --snapshot")
	fs.BoolVar(&f.abort, "abort", false, "hand the database back")
	fs.BoolVar(&f.follow, "follow", false, "tell what changes, until Ctrl-C")
	fs.StringVar(&f.snapshot, "snapshot", "", "`file` for the state, with --cut-over")
	fs.StringSliceVar(&f.accept, "accept", nil, "`codes` of wrong things to go on with")
	fs.BoolVar(&f.stopped, "stopped", false,
		"the existing controller does not run, and need not step down")
	fs.BoolVar(&f.again, "again", false,
		"with --cut-over: hand the state out again, in larger numbers, although it was")
	fs.BoolVar(&f.unused, "not-founded", false,
		"with --abort: no cluster was founded from the snapshot")
	fs.StringVar(&f.address, "address-for-peers", movedAddress,
		"`URL` that the old controller finds in its database as the leader's")
	fs.BoolVar(&f.pageservers, "pageservers", false, "ask the pageservers what they have")
	fs.BoolVar(&f.unchecked, "unchecked", false,
		"with --cut-over: do not ask them, although only they can tell that the database is old")
	fs.BoolVar(&f.useHTTPS, "use-https-pageserver-api", false, "ask them by HTTPS")
	fs.StringVar(&f.token, "jwt-token", os.Getenv("PAGESERVER_JWT_TOKEN"),
		"`token` for pageservers (env PAGESERVER_JWT_TOKEN)")
	fs.StringVar(&f.peerToken, "peer-jwt-token", os.Getenv("PEER_JWT_TOKEN"),
		"`token` for the existing controller (env PEER_JWT_TOKEN)")
	fs.StringVar(&f.caFile, "ssl-ca-file", "", "`file` with more roots to trust")
	fs.DurationVar(&f.every, "interval", 10*time.Second, "of --follow")
	fs.StringVarP(&f.output, "output", "o", "text", "`format` of the answer: text or json")
	for _, secret := range []string{"from", "jwt-token", "peer-jwt-token"} {
		fs.Lookup(secret).DefValue = ""
	}
	cmd.MarkFlagsMutuallyExclusive("plan", "cut-over", "abort", "follow")
	return cmd
}

func (f *importFlags) run(ctx context.Context, out io.Writer) error {
	switch {
	case f.from == "":
		return fmt.Errorf("%w: --from or DATABASE_URL names the database", errUsage)
	case f.cutOver != (f.snapshot != ""):
		return fmt.Errorf("%w: --cut-over and --snapshot go together", errUsage)
	case f.cutOver && f.pageservers == f.unchecked:
		return fmt.Errorf("%w: --cut-over needs --pageservers, which finds out whether the database "+
			"is an older copy, or else --unchecked", errUsage)
	case f.again && !f.cutOver:
		return fmt.Errorf("%w: --again goes with --cut-over", errUsage)
	case f.every <= 0:
		return fmt.Errorf("%w: --interval must be positive", errUsage)
	case !strings.HasSuffix(f.address, "/"):
		return fmt.Errorf("%w: --address-for-peers must end with /", errUsage)
	}
	if err := checkOutput(f.output); err != nil {
		return err
	}
	transport, err := f.transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	db, err := neondb.Open(ctx, f.from)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	src := handover.Source{Database: db}
	for _, code := range f.accept {
		src.Accept = append(src.Accept, neonstate.Code(code))
	}
	if f.pageservers {
		client := pageserver.New(pageserver.Options{
			Transport: transport, Token: func() string { return f.token }, UseHTTPS: f.useHTTPS,
		})
		defer client.Close()
		src.Pageservers = client
	}
	switch {
	case f.abort:
		return f.doAbort(ctx, out, db)
	case f.cutOver:
		return f.doCutOver(ctx, out, src, db, &http.Client{
			Transport: transport, CheckRedirect: jsonhttp.StayHere,
		})
	case f.follow:
		return handover.Follow(ctx, src, f.every, func(s handover.Seen) error {
			return f.printSeen(out, s)
		})
	}
	r, err := handover.Plan(ctx, src)
	if err != nil {
		return err
	}
	if err := f.print(out, r); err != nil {
		return err
	}
	if len(r.Blocking) > 0 {
		return fmt.Errorf("%w: %v", handover.ErrBlocked, r.Blocking)
	}
	return nil
}

func (f *importFlags) transport() (*http.Transport, error) {
	var conf *tls.Config
	if f.caFile != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, err
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", f.caFile)
		}
		conf = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return pageserver.NewTransport(nil, conf), nil
}

func (f *importFlags) doCutOver(
	ctx context.Context, out io.Writer, src handover.Source, db handover.Owner,
	via *http.Client,
) error {
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	r, err := handover.CutOver{
		Source: src, Owner: db, Stopped: f.stopped, Again: f.again,
		ID:  "neon-" + hex.EncodeToString(id[:]),
		Own: neondb.Leader{Address: f.address, StartedAt: time.Now()},
		StepDown: func(ctx context.Context, address string) (neon.GlobalObserved, error) {
			return stepDown(ctx, via, address, f.peerToken)
		},
		Answers: func(ctx context.Context, address string) bool {
			return answers(ctx, via, address)
		},
		Rehearse: func(write func(io.Writer) error) error {
			return atomicfile.Rehearse(f.snapshot, write)
		},
		Save: func(write func(io.Writer) error) error {
			return atomicfile.Write(f.snapshot, write)
		},
		Wrap: func(w io.Writer, origin string, at time.Time, state io.WriterTo) error {
			return cluster.WriteSaved(ctx, w, origin, at, state)
		},
	}.Do(ctx)
	if r != nil {
		if err := f.print(out, r); err != nil {
			return err
		}
	}
	if err != nil || f.output == "json" {
		return err
	}
	fmt.Fprintf(out, "\nThe state is in %s. Found ONE cluster from it, once:\n"+
		"  storage_controller snapshot restore %s --data-dir DIR …\n"+
		"The old controller cannot change anything any more: stop it for good.\n", f.snapshot,
		f.snapshot)
	return nil
}

// The step-down of a controller that ends its work can take long, and its answer is large.
const (
	stepDownLimit = 2 * time.Minute
	stepDownBody  = 1 << 30
)

// stepDown makes the existing controller stop, as another instance of it would.
func stepDown(
	ctx context.Context, via jsonhttp.Doer, address, token string,
) (seen neon.GlobalObserved, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepDownLimit)
	defer cancel()
	a, err := jsonhttp.Do(ctx, via, jsonhttp.Request{
		Method: http.MethodPut, URL: strings.TrimSuffix(address, "/") + "/control/v1/step_down",
		Token: token, Limit: stepDownBody,
	})
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return nil, err // it was not asked
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", handover.ErrUnsure, err)
	}
	if !a.OK() {
		err := fmt.Errorf("status %d: %.200s", a.Status, a.Body)
		if a.Status >= http.StatusInternalServerError {
			err = fmt.Errorf("%w: %w", handover.ErrUnsure, err)
		}
		return nil, err
	}
	if err := json.Unmarshal(a.Body, &seen); err != nil {
		return nil, fmt.Errorf("%w: its answer is not understood: %w", handover.ErrUnsure, err)
	}
	return seen, nil
}

// answerLimit is how long a controller that is said to be stopped is waited for.
const answerLimit = 2 * time.Second

// answers tells whether a controller runs. What a balancer says in its place does not count.
func answers(ctx context.Context, via jsonhttp.Doer, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	a, err := jsonhttp.Do(ctx, via, jsonhttp.Request{
		Method: http.MethodGet, URL: strings.TrimSuffix(address, "/") + "/status",
	})
	return err == nil && a.Status < http.StatusInternalServerError
}

func (f *importFlags) doAbort(ctx context.Context, out io.Writer, db *neondb.Database) error {
	m, err := handover.Abort(ctx, db, f.unused)
	if errors.Is(err, neondb.ErrHandedOut) {
		return fmt.Errorf("%w. If no cluster was founded from it, delete the snapshot and say "+
			"--not-founded; if one was, `export` is the way back", err)
	}
	if err != nil {
		return err
	}
	if f.output == "json" {
		return printJSON(out, m)
	}
	fmt.Fprintln(out, "The database is handed back. Generations have jumped. Start the existing "+
		"controller again: one that has stepped down does not lead any more.")
	return nil
}
