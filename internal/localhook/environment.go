package localhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"quorate/api/neon"
)

// Ports of a pageserver that its configuration leaves out.
const (
	defaultPgPort   = 5432
	defaultGRPCPort = 51051
)

// defaultKeyFile is where neon_local keeps the key that signs tokens.
const defaultKeyFile = "auth_private_key.pem"

// environment is what the directory of a neon_local environment says.
type environment struct {
	dir         string
	keyFile     string
	safekeepers map[neon.NodeID]uint16 // port for computes
	pageservers map[neon.NodeID]pageserverConf
}

// pageserverConf is the part of a pageserver.toml that computes need.
type pageserverConf struct {
	PgAddr   string  `toml:"listen_pg_addr"`
	GRPCAddr *string `toml:"listen_grpc_addr"`
}

// environmentConf is the part of the file config that matters here.
type environmentConf struct {
	PrivateKeyPath string `toml:"private_key_path"`
	Safekeepers    []struct {
		ID             uint64  `toml:"id"`
		PgPort         uint16  `toml:"pg_port"`
		TenantOnlyPort *uint16 `toml:"pg_tenant_only_port"`
	} `toml:"safekeepers"`
}

// loadEnvironment reads the file config and the configuration of each pageserver.
func loadEnvironment(dir string) (*environment, error) {
	var conf environmentConf
	if err := readTOML(filepath.Join(dir, "config"), &conf); err != nil {
		return nil, err
	}
	env := &environment{
		dir: dir, keyFile: conf.PrivateKeyPath,
		safekeepers: make(map[neon.NodeID]uint16),
		pageservers: make(map[neon.NodeID]pageserverConf),
	}
	if env.keyFile == "" {
		env.keyFile = defaultKeyFile
	}
	if !filepath.IsAbs(env.keyFile) {
		env.keyFile = filepath.Join(dir, env.keyFile)
	}
	for _, s := range conf.Safekeepers {
		port := s.PgPort
		if s.TenantOnlyPort != nil {
			port = *s.TenantOnlyPort
		}
		env.safekeepers[neon.NodeID(s.ID)] = port
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), "pageserver_")
		if !ok {
			continue
		}
		if err := env.addPageserver(filepath.Join(dir, e.Name()), name); err != nil {
			return nil, err
		}
	}
	return env, nil
}

func (env *environment) addPageserver(dir, name string) error {
	id, err := neon.ParseNodeID(name)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	var conf pageserverConf
	if err := readTOML(filepath.Join(dir, "pageserver.toml"), &conf); err != nil {
		return err
	}
	var identity struct {
		ID uint64 `toml:"id"`
	}
	if err := readTOML(filepath.Join(dir, "identity.toml"), &identity); err != nil {
		return err
	}
	if neon.NodeID(identity.ID) != id {
		return fmt.Errorf("%s: identity.toml is of pageserver %d", dir, identity.ID)
	}
	env.pageservers[id] = conf
	return nil
}

func readTOML(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := toml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// endpoint is one compute of the environment.
type endpoint struct {
	id   string
	dir  string
	conf endpointConf
}

// endpointConf is the part of an endpoint.json that matters here.
type endpointConf struct {
	Tenant   neon.TenantID   `json:"tenant_id"`
	Timeline neon.TimelineID `json:"timeline_id"`
	Mode     json.RawMessage `json:"mode"`
	PgPort   uint16          `json:"pg_port"`
	HTTPPort uint16          `json:"external_http_port"`
	GRPC     bool            `json:"grpc"`
}

// primary tells a compute that writes from replicas and those of one LSN.
func (e *endpoint) primary() bool {
	return bytes.Equal(bytes.TrimSpace(e.conf.Mode), []byte(`"Primary"`))
}

// endpoints lists the computes by their names. One that is removed meanwhile does
// not count.
func (env *environment) endpoints() ([]endpoint, error) {
	dir := filepath.Join(env.dir, "endpoints")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []endpoint
	for _, entry := range entries {
		e := endpoint{id: entry.Name(), dir: filepath.Join(dir, entry.Name())}
		text, err := os.ReadFile(filepath.Join(e.dir, "endpoint.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(text, &e.conf)
		}
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: %w", e.id, err)
		}
		all = append(all, e)
	}
	return all, nil
}

// splitAddress reads `host[:port]`, as pageserver.toml spells addresses.
func splitAddress(address string, defaultPort int) (string, error) {
	if !strings.Contains(address, ":") || strings.HasSuffix(address, "]") {
		address = address + ":" + strconv.Itoa(defaultPort)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || host == "" {
		return "", fmt.Errorf("address %q is not host:port", address)
	}
	return net.JoinHostPort(host, port), nil
}
