package storconcli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

// session is one run of the program. It has the flags of all subcommands, and the client
// and the printer that are made from them. It knows no subcommand.
type session struct {
	env     Env
	api     *url.URL
	jwt     string
	caFile  string
	format  format
	timeout neon.Duration

	defaults    defaults
	defaultsErr error // of reading them

	client *client
	out    *printer
}

// defaultTimeout bounds one request. The controller answers most of them within 40 s. A
// deletion and a move between safekeepers may take minutes, and a split half an hour.
const defaultTimeout = neon.Duration(35 * time.Minute)

const usageLine = "storcon_cli --api <API> <COMMAND>"

func newRoot(s *session) *cobra.Command {
	s.format, s.timeout = formatTable, defaultTimeout
	if s.defaults, s.defaultsErr = loadDefaults(s.env.Getenv); s.defaultsErr == nil {
		s.api, s.defaultsErr = s.defaults.api()
	}
	root := &cobra.Command{
		Use:           usageLine,
		Short:         "CLI for Storage Controller Support/Debug",
		Version:       s.env.Version,
		SilenceErrors: true,
		SilenceUsage:  true,

		DisableFlagsInUseLine:      true,
		SuggestionsMinimumDistance: 2,
	}
	root.Args = func(_ *cobra.Command, args []string) error { return s.noSubcommand(root, args) }
	root.RunE = func(*cobra.Command, []string) error { return nil } // Args has always failed before
	root.SetVersionTemplate("storcon_cli {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	root.Flags().BoolP("version", "V", false, "Print version")

	global := root.PersistentFlags()
	global.SortFlags = false
	add(global, "api", &s.api, parseURL,
		"URL to storage controller.  e.g. http://127.0.0.1:1234 when using neon_local [env: STORCON_API=]")
	add(global, "jwt", &s.jwt, parseText,
		"JWT token for authenticating with storage controller.  Depending on the API used, this should have either pageserverapi or admin scopes: mint one with both for this tool [env: STORCON_JWT= or STORCON_JWT_FILE=]")
	add(global, "ssl-ca-file", &s.caFile, parseText,
		"Trusted root CA certificates to use in https APIs, beside those of the system [env: STORCON_SSL_CA_FILE=]")
	add(global, "output", &s.format, parseFormat, "What to print: table, json or yaml")
	add(global, "request-timeout", &s.timeout, neon.ParseDuration,
		"How long to wait for the answer to one request")
	global.Lookup("output").Shorthand = "o"
	complete(root, "output", formats...)
	_ = root.MarkPersistentFlagFilename("ssl-ca-file")

	root.AddCommand(nodeCommands{s}.all()...)
	root.AddCommand(operationCommands{s}.all()...)
	root.AddCommand(tenantCommands{s}.all()...)
	root.AddCommand(configCommands{s}.all()...)
	root.AddCommand(shardCommands{s}.all()...)
	root.AddCommand(bulkCommands{s}.migrate())
	root.AddCommand(safekeeperCommands{s}.all()...)
	root.AddCommand(clusterCommands{s}.group())
	return root
}

// noSubcommand is the error of a command line without a subcommand.
func (s *session) noSubcommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &usageError{
			msg:   "'storcon_cli' requires a subcommand but one was not provided",
			usage: usageLine,
		}
	}
	msg := fmt.Sprintf("unrecognized subcommand '%s'", args[0])
	if similar := root.SuggestionsFor(args[0]); len(similar) > 0 {
		msg += fmt.Sprintf("\n\n  tip: a similar subcommand exists: '%s'", similar[0])
	}
	return &usageError{msg: msg, usage: usageLine}
}

// leaf makes a subcommand. It takes only flags, unless its Args is replaced.
func (s *session) leaf(name, short string, run func(ctx context.Context) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unexpected argument '%s' found", args[0])
			}
			return s.missing(cmd)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.open(); err != nil {
				return err
			}
			return run(cmd.Context())
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	return cmd
}

// missing returns an error when a required flag was not given.
func (s *session) missing(cmd *cobra.Command) error {
	var names []string
	usage := "storcon_cli --api <API> " + cmd.Name()
	if s.api == nil {
		if s.defaultsErr != nil {
			return s.defaultsErr
		}
		names = append(names, "--api <API>")
	}
	for _, f := range requiredFlags(cmd) {
		usage += " " + spelled(f)
		if !f.Changed {
			names = append(names, spelled(f))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &usageError{
		msg: "the following required arguments were not provided:\n  " + strings.Join(names,
			"\n  "),
		usage: usage,
	}
}

// open makes the client and the printer that the flags ask for.
func (s *session) open() (err error) {
	if s.defaultsErr != nil {
		return s.defaultsErr
	}
	if s.jwt == "" {
		if s.jwt, err = s.defaults.token(s.api); err != nil {
			return err
		}
	}
	if s.caFile == "" {
		s.caFile = s.defaults.caFile()
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSHandshakeTimeout = connectTimeout
	transport.DialContext = dialer().DialContext
	if s.caFile != "" {
		pool, err := trust(s.caFile)
		if err != nil {
			return err
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	s.client = &client{
		base:  s.api,
		token: s.jwt,
		http:  &http.Client{Transport: transport, Timeout: time.Duration(s.timeout)},
	}
	s.out = &printer{
		out: s.env.Stdout, err: s.env.Stderr, format: s.format, colour: ink(s.env.ColourStdout),
	}
	return nil
}

func (s *session) close() {
	if s.client != nil {
		s.client.http.CloseIdleConnections()
	}
}

// trust returns the certificates of the system and those in the file.
func trust(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // the file may be all there is
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate in it", file)
	}
	return pool, nil
}

func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("relative URL without a base")
	case u.Host == "":
		return nil, errors.New("empty host")
	}
	return u, nil
}
