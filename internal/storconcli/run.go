package storconcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Exit codes.
const (
	ExitDone  = 0
	ExitError = 1 // the work failed
	ExitUsage = 2 // the command line was wrong, nothing was sent
)

// Env is what a run knows of its process.
type Env struct {
	Args           []string // without the name of the program
	Version        string   // what --version prints behind that name
	Stdout, Stderr io.Writer

	// Getenv returns environment variables; nil: there are none.
	Getenv func(string) string

	// Whether Stdout and Stderr are terminals with colours.
	ColourStdout, ColourStderr bool

	WatchEvery time.Duration // how often a watched shard is looked at; 0: every 5 s
	PollEvery  time.Duration // the same of a cancelled operation; 0: every 200 ms
}

const (
	defaultWatchEvery = 5 * time.Second
	defaultPollEvery  = 200 * time.Millisecond
)

// usageError is a mistake on the command line.
type usageError struct {
	msg   string
	usage string // the right way; may be empty
}

func (e *usageError) Error() string { return e.msg }

func usagef(
	format string, args ...any,
) error {
	return &usageError{msg: fmt.Sprintf(format, args...)}
}

// complaint is an error with the text of Neon's storcon_cli, which scripts and runbooks
// know. Such a text is a whole sentence.
type complaint string

func (c complaint) Error() string { return string(c) }

func complain(format string, args ...any) error { return complaint(fmt.Sprintf(format, args...)) }

// Run does what env.Args say and returns the exit code.
func Run(ctx context.Context, env Env) int {
	if env.WatchEvery == 0 {
		env.WatchEvery = defaultWatchEvery
	}
	if env.PollEvery == 0 {
		env.PollEvery = defaultPollEvery
	}
	s := &session{env: env}
	defer s.close()
	root := newRoot(s)
	root.SetArgs(append([]string{}, env.Args...)) // nil would mean those of the process
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	if len(env.Args) == 0 {
		root.SetOut(env.Stderr)
		root.SetArgs([]string{"--help"})
		_ = root.ExecuteContext(ctx)
		return ExitUsage
	}
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	k := ink(env.ColourStderr)
	var usage *usageError
	if !errors.As(err, &usage) {
		fmt.Fprintf(env.Stderr, "%s %v\n", k.red("Error:"), err)
		return ExitError
	}
	fmt.Fprintf(env.Stderr, "%s %s\n", k.red("error:"), usage.msg)
	if usage.usage != "" {
		fmt.Fprintf(env.Stderr, "\nUsage: %s\n", usage.usage)
	}
	fmt.Fprint(env.Stderr, "\nFor more information, try '--help'.\n")
	return ExitUsage
}
