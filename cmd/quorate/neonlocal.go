package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
)

// The names in the directory of neon_local.
const (
	neonLocalName  = "neon_local"
	controllerName = "storage_controller"
	originalName   = "storage_controller.neon" // the one that was there before
)

func newNeonLocalCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "neon-local", Short: "Put the storage controller where neon_local starts it",
		Args: cobra.NoArgs,
	}
	var from, dir string
	install := &cobra.Command{
		Use: "install", Short: "Put it beside neon_local, and keep the one that is there",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := newSwap(dir, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return s.install(from)
		},
	}
	install.Flags().StringVar(&from, "controller", besideUs(controllerName),
		"the storage_controller `binary` to put there")
	undo := &cobra.Command{
		Use: "undo", Short: "Put the one back that was there before", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := newSwap(dir, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return s.undo()
		},
	}
	for _, sub := range []*cobra.Command{install, undo} {
		sub.Flags().StringVar(&dir, "neon-bin", os.Getenv("NEON_BIN"),
			"`directory` with neon_local, such as target/release (env NEON_BIN)")
		cmd.AddCommand(sub)
	}
	return cmd
}

// swap exchanges the controller beside neon_local. That is where neon_local starts it,
// whatever its configuration says, and where a link to neon_local leads, not where it is.
type swap struct {
	target, original string
	out              io.Writer
	ours             func(path string) (bool, error)
}

func newSwap(dir string, out io.Writer) (*swap, error) {
	if dir == "" {
		return nil, errors.New("--neon-bin is needed: the directory with neon_local")
	}
	program, err := filepath.EvalSymlinks(filepath.Join(dir, neonLocalName))
	if err != nil {
		return nil, fmt.Errorf("%s is not the directory with neon_local: %w", dir, err)
	}
	if program, err = filepath.Abs(program); err != nil {
		return nil, err
	}
	at := filepath.Dir(program)
	return &swap{
		target: filepath.Join(at, controllerName), original: filepath.Join(at, originalName),
		out: out, ours: isOurs,
	}, nil
}

// isOurs tells whether a program is this project's storage controller. A file that does not
// exist is not.
func isOurs(path string) (bool, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	info, err := buildinfo.ReadFile(path)
	return err == nil && info.Path == "quorate/cmd/storage_controller", nil // else: no Go program
}

func (s *swap) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// install can be repeated. At no moment is there no controller, or half of one.
func (s *swap) install(from string) error {
	if ours, err := s.ours(from); err != nil {
		return err
	} else if !ours {
		return fmt.Errorf("%s is not a storage_controller of Quorate: build it with `make build`, "+
			"or name it with --controller", from)
	}
	there, err := s.ours(s.target)
	if err != nil {
		return err
	}
	_, err = os.Lstat(s.target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.say("there was no %s", s.target)
	case err != nil:
		return err
	case there:
		s.say("replacing an earlier one of Quorate at %s", s.target)
	default: // also when neon was built again since
		if err := replace(s.original, s.target); err != nil {
			return err
		}
		s.say("kept    %s\n     as %s", s.target, s.original)
	}
	if err := replace(s.target, from); err != nil {
		return err
	}
	s.say("put     %s\n     at %s", from, s.target)
	s.say("It counts from the next start: neon_local stop, neon_local start.\n" +
		"An environment that has tenants already keeps them in its database: move them in with\n" +
		"`storage_controller import` before, or begin with neon_local init. A new build of Neon\n" +
		"puts its own controller there again.")
	return nil
}

// undo can be repeated too.
func (s *swap) undo() error {
	there, err := s.ours(s.target)
	if err != nil {
		return err
	}
	if !there {
		s.say("%s is not of Quorate: nothing to undo", s.target)
		return nil
	}
	err = os.Rename(s.original, s.target)
	switch {
	case err == nil:
		s.say("put     %s\nback at %s", s.original, s.target)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	default:
		if err := os.Remove(s.target); err != nil {
			return err
		}
		s.say("removed %s\nThere was none before", s.target)
	}
	s.say("It counts from the next start. What Quorate has decided is not in Neon's database:\n" +
		"generations issued there are lower than those in use, so begin with neon_local init.")
	return nil
}

// replace makes a program a copy of another one, in one step.
func replace(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := renameio.NewPendingFile(to, renameio.WithTempDir(filepath.Dir(to)),
		renameio.WithStaticPermissions(0o755))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Cleanup()) }()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.CloseAtomicallyReplace()
}
