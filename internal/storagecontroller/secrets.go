package storagecontroller

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"quorate/api/auth"
	"quorate/internal/app"
	"quorate/internal/secretfiles"
)

// secretFlag is a key or a token that is given on the command line, in the environment, or
// in a file that either of them names.
type secretFlag struct {
	name, env string
	value     *string
	file      string
}

// secretVar registers a secret and its file.
func (f *flags) secretVar(fs *pflag.FlagSet, into *string, name, env, usage string) {
	s := &secretFlag{name: name, env: env, value: into}
	fs.StringVar(into, name, os.Getenv(env), usage+" (env "+env+")")
	fs.StringVar(&s.file, name+"-file", os.Getenv(env+"_FILE"),
		"`file` with what --"+name+" takes, read again when it changes (env "+env+"_FILE)")
	fs.Lookup(name).DefValue, fs.Lookup(name+"-file").DefValue = "", ""
	f.secrets = append(f.secrets, s)
}

// resolve chooses between the value and the file. The command line wins over the
// environment, and on neither of them may both be.
func (s *secretFlag) resolve(fs *pflag.FlagSet) error {
	if *s.value == "" || s.file == "" {
		return nil
	}
	value, file := fs.Changed(s.name), fs.Changed(s.name+"-file")
	switch {
	case value && !file:
		s.file = ""
	case file && !value:
		*s.value = ""
	default:
		where := "--" + s.name + " and --" + s.name + "-file"
		if !value {
			where = s.env + " and " + s.env + "_FILE"
		}
		return fmt.Errorf("%w: %s are both given; give one of them", errUsage, where)
	}
	return nil
}

// asPath makes a key that is the name of a file or a directory be read from there.
func (s *secretFlag) asPath() {
	text := *s.value
	if !strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "./") &&
		!strings.HasPrefix(text, "../") || strings.ContainsAny(text, "\n\x00") {
		return
	}
	if _, err := os.Stat(text); err == nil {
		s.file, *s.value = text, ""
	}
}

// isGiven tells whether there is a secret, wherever it is.
func (s *secretFlag) isGiven() bool { return *s.value != "" || s.file != "" }

// peer is the token that is not used.
func (f *flags) peer() *secretFlag {
	for _, s := range f.secrets {
		if s.value == &f.peerToken {
			return s
		}
	}
	return &secretFlag{value: new(string)}
}

// checkSecrets refuses secrets that are given twice.
func (f *flags) checkSecrets() error {
	for _, s := range f.secrets {
		if err := s.resolve(f.set); err != nil {
			return err
		}
		if s.value == &f.publicKey {
			s.asPath()
		}
	}
	return nil
}

// loadSecrets reads keys and tokens, those in files for the first time.
func (f *flags) loadSecrets(cfg *app.Config, log *slog.Logger) error {
	files := secretfiles.New(cmp.Or(f.certReload.std(), time.Minute), log)
	for _, s := range f.secrets {
		var err error
		switch s.value {
		case &f.publicKey:
			cfg.Keys, err = s.keys(files)
		case &f.jwtToken:
			cfg.Tokens.Pageserver, err = s.token(files)
		case &f.safekeeperToken:
			cfg.Tokens.Safekeeper, err = s.token(files)
		case &f.hookToken:
			cfg.Tokens.ControlPlane, err = s.token(files)
		}
		if err != nil {
			return err
		}
	}
	if len(files.States()) > 0 {
		cfg.Secrets = files
	}
	return nil
}

// keys are those that callers' tokens are checked with; nil: none.
func (s *secretFlag) keys(files *secretfiles.Watcher) (*auth.Keys, error) {
	switch {
	case s.file != "":
		keys := auth.NewKeys()
		return keys, files.Add(s.name, s.file, func(contents [][]byte) error {
			all, err := auth.MergeKeys(contents)
			if err == nil {
				keys.Replace(all)
			}
			return err
		})
	case *s.value != "":
		all, err := auth.ParseKeys([]byte(*s.value))
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", s.name, err)
		}
		return auth.NewKeys(all...), nil
	}
	return nil, nil
}

// token returns the present token; nil: there is none.
func (s *secretFlag) token(files *secretfiles.Watcher) (func() string, error) {
	switch {
	case s.file != "":
		token := &secretfiles.Token{}
		return token.Text, files.Add(s.name, s.file, token.Take)
	case *s.value != "":
		text := *s.value
		return func() string { return text }, nil
	}
	return nil, nil
}

// watchSecrets reads files of secrets again until the returned function is called.
func watchSecrets(ctx context.Context, files *secretfiles.Watcher) (stop func()) {
	if files == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { files.Run(ctx) })
	return func() { cancel(); wg.Wait() }
}
