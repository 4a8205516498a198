package localhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"quorate/api/neon"
)

// object is a JSON object. Fields that this package does not know stay as they are.
type object map[string]json.RawMessage

func (o object) set(key string, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		o[key] = b
	}
	return err
}

// connectionInfo tells a compute where the shards of its tenant are.
type connectionInfo struct {
	ShardCount neon.ShardCount      `json:"shard_count"`
	StripeSize *neon.StripeSize     `json:"stripe_size"`
	Shards     map[string]shardInfo `json:"shards"` // by NNCC
	Prefer     string               `json:"prefer_protocol"`
}

type shardInfo struct {
	Pageservers []pageserverInfo `json:"pageservers"`
}

type pageserverInfo struct {
	ID    neon.NodeID `json:"id"`
	Libpq string      `json:"libpq_url"`
	GRPC  *string     `json:"grpc_url"`
}

// connection says to one endpoint what the notification says.
func (env *environment) connection(n *neon.NotifyAttach, e *endpoint) (connectionInfo, error) {
	info := connectionInfo{
		StripeSize: n.StripeSize, Shards: make(map[string]shardInfo, len(n.Shards)),
		Prefer: "libpq",
	}
	if e.conf.GRPC {
		info.Prefer = "grpc"
	}
	if len(n.Shards) == 0 {
		return info, errors.New("no pageservers provided")
	}
	if len(n.Shards) > 1 {
		info.ShardCount = neon.ShardCount(len(n.Shards))
	}
	for _, sh := range n.Shards {
		conf, ok := env.pageservers[sh.Node]
		if !ok {
			return info, fmt.Errorf("unknown pageserver %d", sh.Node)
		}
		ps, err := conf.info(sh.Node)
		if err != nil {
			return info, err
		}
		index := fmt.Sprintf("%02x%02x", uint8(sh.Number), uint8(info.ShardCount))
		info.Shards[index] = shardInfo{Pageservers: []pageserverInfo{ps}}
	}
	return info, nil
}

func (c pageserverConf) info(id neon.NodeID) (info pageserverInfo, err error) {
	address, err := splitAddress(c.PgAddr, defaultPgPort)
	if err != nil {
		return info, fmt.Errorf("pageserver %d: listen_pg_addr: %w", id, err)
	}
	info = pageserverInfo{ID: id, Libpq: "postgres://no_user@" + address}
	if c.GRPCAddr != nil {
		if address, err = splitAddress(*c.GRPCAddr, defaultGRPCPort); err != nil {
			return info, fmt.Errorf("pageserver %d: listen_grpc_addr: %w", id, err)
		}
		url := "grpc://no_user@" + address
		info.GRPC = &url
	}
	return info, nil
}

// connstrings lists the addresses of safekeepers for a compute, which only a primary uses.
func (env *environment) connstrings(
	safekeepers neon.List[neon.NotifySafekeeper], e *endpoint,
) ([]string, error) {
	list := []string{}
	if !e.primary() {
		return list, nil
	}
	for _, k := range safekeepers {
		port, ok := env.safekeepers[k.ID]
		if !ok {
			return nil, fmt.Errorf("safekeeper %d does not exist", k.ID)
		}
		list = append(list, "127.0.0.1:"+strconv.Itoa(int(port)))
	}
	return list, nil
}

// request is the body of a configuration: the specification with which the
// compute was started, changed.
func (e *endpoint) request(change func(spec object) error) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(e.dir, "config.json"))
	if err != nil {
		return nil, err
	}
	var config struct {
		Spec    object          `json:"spec"`
		Control json.RawMessage `json:"compute_ctl_config"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if config.Spec == nil {
		return nil, errors.New("config.json has no spec")
	}
	if err := e.freshPostgresConf(config.Spec); err != nil {
		return nil, err
	}
	if err := change(config.Spec); err != nil {
		return nil, err
	}
	if config.Control == nil {
		config.Control = json.RawMessage(`{}`)
	}
	return json.Marshal(config)
}

// freshPostgresConf puts the text of postgresql.conf into the specification: a
// compute takes it from there, and users edit the file.
func (e *endpoint) freshPostgresConf(spec object) error {
	text, err := os.ReadFile(filepath.Join(e.dir, "postgresql.conf"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cluster := object{}
	if raw, ok := spec["cluster"]; ok {
		if err := json.Unmarshal(raw, &cluster); err != nil {
			return fmt.Errorf("config.json: cluster: %w", err)
		}
	}
	if cluster == nil {
		cluster = object{}
	}
	if err := cluster.set("postgresql_conf", string(text)); err != nil {
		return err
	}
	return spec.set("cluster", cluster)
}
