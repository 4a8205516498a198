package storconcli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// The environment variables that stand in for flags. Neon's storcon_cli reads none.
const (
	envAPI     = "STORCON_API"
	envToken   = "STORCON_JWT"
	envJWTFile = "STORCON_JWT_FILE"
	envCA      = "STORCON_SSL_CA_FILE"
	envConfig  = "STORCON_CONFIG"
)

// configName is below $XDG_CONFIG_HOME, or ~/.config.
const configName = "storcon_cli.toml"

// maxSettings bounds a file with settings or with a token, in bytes.
const maxSettings = 64 << 10

// settings are what need not be said on each command line.
type settings struct {
	API       string `toml:"api"`
	JWT       string `toml:"jwt"`
	JWTFile   string `toml:"jwt_file"`
	SSLCAFile string `toml:"ssl_ca_file"`
}

// defaults are settings of the environment and of a file.
type defaults struct {
	env, file settings
	path      string // of the file
}

// loadDefaults reads the environment, and the file that it names or that is at the usual
// place. A file at the usual place need not be there.
func loadDefaults(getenv func(string) string) (d defaults, err error) {
	if getenv == nil {
		return d, nil
	}
	d.env = settings{
		API: getenv(envAPI), JWT: getenv(envToken), JWTFile: getenv(envJWTFile),
		SSLCAFile: getenv(envCA),
	}
	if d.env.JWT != "" && d.env.JWTFile != "" {
		return d, fmt.Errorf("%s and %s are both set; set one of them", envToken, envJWTFile)
	}
	d.path = getenv(envConfig)
	named := d.path != ""
	if !named {
		if d.path = usualConfig(getenv); d.path == "" {
			return d, nil
		}
	}
	text, info, err := readSmall(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return d, nil
	case err != nil:
		return d, err
	}
	if d.file, err = parseSettings(text); err != nil {
		return d, fmt.Errorf("%s: %w", d.path, err)
	}
	// A name in the file is looked up beside the file.
	for _, name := range []*string{&d.file.JWTFile, &d.file.SSLCAFile} {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(filepath.Dir(d.path), *name)
		}
	}
	if d.file.JWT != "" {
		err = private(d.path, info)
	}
	return d, err
}

func usualConfig(getenv func(string) string) string {
	dir := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // as the specification wants it
		home := getenv("HOME")
		if home == "" {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, configName)
}

// parseSettings refuses what it does not know: it is a mistake that would go unnoticed.
func parseSettings(text []byte) (s settings, err error) {
	dec := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	err = dec.Decode(&s)
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		return s, fmt.Errorf("unknown key; known are api, jwt, jwt_file and ssl_ca_file:\n%s",
			unknown.String())
	}
	if err == nil && s.JWT != "" && s.JWTFile != "" {
		err = errors.New("jwt and jwt_file are both given; give one of them")
	}
	return s, err
}

// api is the address to use when none is on the command line; nil: none.
func (d *defaults) api() (*url.URL, error) {
	text := firstOf(d.env.API, d.file.API)
	if text == "" {
		return nil, nil
	}
	u, err := parseURL(text)
	if err != nil {
		where := envAPI
		if d.env.API == "" {
			where = d.path
		}
		return nil, fmt.Errorf("%s: the address %q: %w", where, text, err)
	}
	return u, nil
}

// token is what to present at an address when none is on the command line. That of a file
// with an address is for this address only, so that it does not go elsewhere by accident.
func (d *defaults) token(api *url.URL) (string, error) {
	s := d.env
	if s.JWT == "" && s.JWTFile == "" {
		if s = d.file; s.API != "" && !sameServer(s.API, api) {
			return "", nil
		}
	}
	if s.JWTFile == "" {
		return s.JWT, nil
	}
	text, info, err := readSmall(s.JWTFile)
	if err == nil {
		err = private(s.JWTFile, info)
	}
	if token := strings.TrimSpace(string(text)); err != nil || token != "" {
		return token, err
	}
	return "", fmt.Errorf("%s: no token in it", s.JWTFile)
}

func sameServer(text string, api *url.URL) bool {
	u, err := parseURL(text)
	return err == nil && u.Scheme == api.Scheme && u.Host == api.Host
}

// caFile is the file of roots when none is on the command line.
func (d *defaults) caFile() string { return firstOf(d.env.SSLCAFile, d.file.SSLCAFile) }

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// private refuses a file with a token that others can read, or that others can exchange.
func private(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return fmt.Errorf("%s has a token in it and mode %#o, so that others on this machine can "+
			"read or change it: chmod 600 %s", path, mode, path)
	}
	return nil
}

func readSmall(path string) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSettings+1))
	if err == nil && len(text) > maxSettings {
		err = fmt.Errorf("%s has more than %d bytes", path, maxSettings)
	}
	return text, info, err
}
