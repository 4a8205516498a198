package storconcli

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// place is a machine with a file of settings, and a controller that notes tokens.
type place struct {
	t    *testing.T
	home string
	vars map[string]string
	url  string
	seen string // the Authorization header of the last request; "-": there was none
}

func newPlace(t *testing.T) *place {
	p := &place{t: t, home: t.TempDir(), vars: map[string]string{}}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.url, p.vars["HOME"] = server.URL, p.home
	return p
}

func (p *place) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.seen = r.Header.Get("Authorization")
	_, _ = w.Write([]byte("[]"))
}

func (p *place) write(name, text string, mode os.FileMode) string {
	p.t.Helper()
	name = filepath.Join(p.home, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		p.t.Fatal(err)
	}
	_ = os.Remove(name)
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil { // whatever the umask is
		p.t.Fatal(err)
	}
	return name
}

func (p *place) nodes(args ...string) (code int, seen, stderr string) {
	p.t.Helper()
	p.seen = "-"
	env := Env{Getenv: func(name string) string { return p.vars[name] }}
	code, _, stderr = invoke(p.t, env, append(args, "nodes")...)
	return code, p.seen, stderr
}

func (p *place) want(token string, args ...string) {
	p.t.Helper()
	if token != "" {
		token = "Bearer " + token
	}
	if code, seen, stderr := p.nodes(args...); code != ExitDone || seen != token {
		p.t.Errorf("%v with %v: exit %d, %q, want %q\n%s", args, p.vars, code, seen, token, stderr)
	}
}

func (p *place) refused(why string, args ...string) {
	p.t.Helper()
	code, seen, stderr := p.nodes(args...)
	if code == ExitDone || seen != "-" || !strings.Contains(stderr, why) {
		p.t.Errorf("%v with %v: exit %d, sent %q\n%s", args, p.vars, code, seen, stderr)
	}
}

// The command line wins over the environment, and that over the file.
func TestSettingsComeFromTheEnvironmentAndAFile(t *testing.T) {
	p := newPlace(t)
	p.refused("--api <API>")
	p.write(".config/storcon_cli.toml", "api = '"+p.url+"'\njwt = 'file'\n", 0o600)
	p.want("file")
	p.vars["STORCON_JWT"] = "env"
	p.want("env")
	p.want("flag", "--jwt", "flag")
	p.vars["STORCON_JWT"] = ""
	p.vars["STORCON_JWT_FILE"] = p.write("token", " of a file\n", 0o600)
	p.want("of a file")
	p.vars["STORCON_JWT"] = "env"
	p.refused("set one of them")
	delete(p.vars, "STORCON_JWT")
	delete(p.vars, "STORCON_JWT_FILE")

	p.vars["XDG_CONFIG_HOME"] = filepath.Join(p.home, "xdg")
	p.refused("--api <API>")
	p.vars["STORCON_API"] = p.url
	p.want("")
	p.write("xdg/token", "beside", 0o640)
	p.write("xdg/storcon_cli.toml", "jwt_file = 'token'\n", 0o644)
	p.want("beside")
	p.vars["STORCON_API"] = "nowhere"
	p.refused("STORCON_API: the address")
	delete(p.vars, "STORCON_API")

	p.vars["STORCON_CONFIG"] = filepath.Join(p.home, "none")
	p.refused("none: no such file")
	p.vars["STORCON_CONFIG"] = p.write("other", "api = '"+p.url+"'", 0o644)
	p.want("")
	p.vars["STORCON_CONFIG"] = p.write("other", "api = '1:'", 0o644)
	p.refused("other: the address")
}

// The token for one controller is not sent to another one.
func TestATokenInAFileIsForTheAddressInIt(t *testing.T) {
	p, other := newPlace(t), newPlace(t)
	p.write(".config/storcon_cli.toml", "api = '"+other.url+"'\njwt = 'secret'\n", 0o600)
	p.want("", "--api", p.url)
	p.vars["STORCON_API"] = p.url + "/"
	p.want("")
	p.write(".config/storcon_cli.toml", "api = '"+p.url+"'\njwt = 'secret'\n", 0o600)
	p.want("secret")
}

func TestATokenThatOthersCanReadIsRefused(t *testing.T) {
	p := newPlace(t)
	for _, mode := range []os.FileMode{0o604, 0o644, 0o620} {
		p.write(".config/storcon_cli.toml", "api = '"+p.url+"'\njwt = 'secret'\n", mode)
		p.refused("chmod 600")
		p.write("secret", "secret", mode)
		p.write(".config/storcon_cli.toml", "api = '"+p.url+"'\njwt_file = '../secret'\n", 0o644)
		p.refused("chmod 600")
	}
	p.write("secret", "secret", 0o400)
	p.want("secret")
	p.write("secret", "\n", 0o400)
	p.refused("no token in it")
}

func TestAMistakeInTheFileIsToldAndNothingSent(t *testing.T) {
	p := newPlace(t)
	for text, why := range map[string]string{
		"url = 'x'": "unknown key", "api = ": "storcon_cli.toml", "jwt = 1": "storcon_cli.toml",
		"jwt = 'a'\njwt_file = 'b'":        "give one of them",
		strings.Repeat("#", maxSettings+1): "more than",
	} {
		p.write(".config/storcon_cli.toml", text, 0o600)
		p.refused(why)
		p.refused(why, "--api", p.url)
	}
}

func TestRootsComeFromTheEnvironment(t *testing.T) {
	p := newPlace(t)
	server := httptest.NewTLSServer(p)
	t.Cleanup(server.Close)
	p.vars["STORCON_API"] = server.URL
	if code, _, _ := p.nodes(); code != ExitError {
		t.Errorf("exit %d without the root", code)
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	p.vars["STORCON_SSL_CA_FILE"] = p.write("ca", string(root), 0o644)
	p.want("")
}

func FuzzSettings(f *testing.F) {
	for _, s := range []string{
		"", "api = 'http://a'", "jwt = 'a'\njwt_file = 'b'", "a = 1", "[api]", "api = '", "\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseSettings(text)
		if err == nil && s.JWT != "" && s.JWTFile != "" {
			t.Errorf("%q has two tokens", text)
		}
	})
}
