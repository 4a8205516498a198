// Command storcon_cli shows an operator what a storage controller knows and
// tells it what to do.
package main

import (
	"context"
	"os"

	"golang.org/x/term"

	"quorate/internal/buildinfo"
	"quorate/internal/storconcli"
)

func main() {
	// Signals end the process as they do by default: whatever was begun goes on in
	// the controller.
	os.Exit(storconcli.Run(context.Background(), storconcli.Env{
		Args:         os.Args[1:],
		Version:      buildinfo.Of().String(),
		Getenv:       os.Getenv,
		Stdout:       os.Stdout,
		Stderr:       os.Stderr,
		ColourStdout: colours(os.Stdout),
		ColourStderr: colours(os.Stderr),
	}))
}

// colours tells whether f is a terminal whose user wants them.
func colours(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" &&
		os.Getenv("TERM") != "dumb"
}
