package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/internal/freeport"
	"quorate/internal/jsonhttp"
	"quorate/testcluster"
)

// real are Neon's own pageservers: one storage_broker, local files as remote
// storage, and a front door, because a pageserver knows one controller only.
type real struct {
	bin, dir string
	install  install
	door     *frontDoor
	broker   *program
	brokerAt string
	http     *http.Client

	mu    sync.Mutex
	nodes map[neon.NodeID]*program
	addrs map[neon.NodeID]string // HTTP
}

// startupTimeout bounds the start of one program.
const startupTimeout = time.Minute

// remoteDir is the remote storage of all pageservers.
const remoteDir = "local_fs_remote_storage/pageserver"

func newReal(opt Options, cluster *testcluster.Cluster) (_ *real, err error) {
	r := &real{
		bin: opt.NeonBin, dir: opt.Dir, nodes: make(map[neon.NodeID]*program),
		addrs: make(map[neon.NodeID]string),
		http: &http.Client{
			Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16},
		},
	}
	for _, name := range []string{"pageserver", "storage_broker"} {
		if _, err := os.Stat(filepath.Join(r.bin, name)); err != nil {
			return nil, fmt.Errorf("no %s in the directory of Neon's binaries: %w", name, err)
		}
	}
	if r.install, err = findInstall(opt.PostgresDir, r.bin, r.dir); err != nil {
		return nil, err
	}
	if err := r.install.own(r.dir, filepath.Join(r.dir, remoteDir)); err != nil {
		return nil, err
	}
	urls := make([]string, cluster.Controllers())
	for i := range urls {
		urls[i] = cluster.URL(i)
	}
	if r.door, err = openFrontDoor(urls); err != nil {
		return nil, err
	}
	if err := r.startBroker(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *real) kind() string { return "pageservers from " + r.bin }

func (r *real) postgres() *neon.PgVersion { return &r.install.version }

func (r *real) startBroker() error {
	addr, err := freeport.Address()
	if err != nil {
		return err
	}
	r.brokerAt = addr
	dir := filepath.Join(r.dir, "storage_broker")
	if err := r.install.own(dir); err != nil {
		return err
	}
	r.broker = &program{
		path: filepath.Join(r.bin, "storage_broker"), args: []string{"--listen-addr=" + addr},
		dir: dir, install: r.install,
	}
	if err := r.broker.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startupTimeout)
	defer cancel()
	return r.broker.await(ctx, func() bool { return r.answers(ctx, "http://"+addr+"/status") })
}

func (r *real) answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return r.ask(ctx, url, nil) == nil
}

// largestAnswer is the limit of a document, in bytes.
const largestAnswer = 64 << 20

// ask gets a JSON document.
func (r *real) ask(ctx context.Context, url string, into any) error {
	a, err := jsonhttp.Do(ctx, r.http, jsonhttp.Request{
		Method: http.MethodGet, URL: url, Body: jsonhttp.Null, Limit: largestAnswer,
	})
	switch {
	case err != nil:
		return err
	case a.Status != http.StatusOK:
		return fmt.Errorf("%s: %d: %s", url, a.Status, a.Body)
	case into == nil:
		return nil
	}
	return a.Decode(into)
}

func (r *real) start(ctx context.Context, id neon.NodeID, zone neon.AZ) error {
	httpAt, err := freeport.Address()
	if err != nil {
		return err
	}
	pgAt, err := freeport.Address()
	if err != nil {
		return err
	}
	dir := filepath.Join(r.dir, fmt.Sprintf("pageserver_%s", id))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range r.files(id, zone, httpAt, pgAt) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := r.install.own(dir); err != nil {
		return err
	}
	p := &program{
		path: filepath.Join(r.bin, "pageserver"), args: []string{"-D", dir}, dir: dir,
		install: r.install,
	}
	r.mu.Lock()
	r.nodes[id], r.addrs[id] = p, httpAt
	r.mu.Unlock()
	return r.restart(ctx, id)
}

// files are what a pageserver reads when it starts: its configuration, its
// identity, and how it registers itself.
func (r *real) files(id neon.NodeID, zone neon.AZ, httpAt, pgAt string) map[string]string {
	toml := []string{
		"listen_pg_addr = '" + pgAt + "'",
		"listen_http_addr = '" + httpAt + "'",
		"pg_auth_type = 'Trust'",
		"http_auth_type = 'Trust'",
		"availability_zone = '" + zone.String() + "'",
		"broker_endpoint = 'http://" + r.brokerAt + "'",
		"control_plane_api = '" + r.door.url + "/upcall/v1/'",
		"pg_distrib_dir = '" + r.install.dir + "'",
		"remote_storage = { local_path = '../" + remoteDir + "' }",
		"virtual_file_io_engine = 'std-fs'",
		"virtual_file_io_mode = 'buffered'",
		"no_sync = true",
	}
	meta := fmt.Sprintf(`{"host":"%s","port":%s,"http_host":"%s","http_port":%s,"availability_zone_id":"%s"}`,
		hostPart(pgAt), portPart(pgAt), hostPart(httpAt), portPart(httpAt), zone)
	return map[string]string{
		"pageserver.toml": strings.Join(toml, "\n") + "\n",
		"identity.toml":   fmt.Sprintf("id = %s\n", id),
		"metadata.json":   meta + "\n",
	}
}

func (r *real) restart(ctx context.Context, id neon.NodeID) error {
	r.mu.Lock()
	p, addr := r.nodes[id], r.addrs[id]
	r.mu.Unlock()
	if err := p.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startupTimeout)
	defer cancel()
	return p.await(ctx, func() bool { return r.answers(ctx, "http://"+addr+"/v1/status") })
}

func (r *real) kill(id neon.NodeID) error {
	r.mu.Lock()
	p := r.nodes[id]
	r.mu.Unlock()
	p.kill()
	return nil
}

func (r *real) running() map[neon.NodeID]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[neon.NodeID]string)
	for id, p := range r.nodes {
		if p.running() {
			out[id] = r.addrs[id]
		}
	}
	return out
}

func (r *real) look(ctx context.Context) (map[neon.NodeID]holding, error) {
	out := make(map[neon.NodeID]holding)
	for id, addr := range r.running() {
		var list neon.LocationListing
		if err := r.ask(ctx, "http://"+addr+"/v1/location_config", &list); err != nil {
			return nil, fmt.Errorf("pageserver %s: %w", id, err)
		}
		h := holding{attached: make(map[neon.ShardID]neon.Generation)}
		for _, l := range list {
			switch {
			case l.Config != nil && l.Config.Mode == neon.AttachedSingle &&
				l.Config.Generation != nil:
				h.attached[l.Shard] = *l.Config.Generation
			case l.Config != nil && l.Config.Mode == neon.Secondary:
				h.secondary++
			default:
				h.others++
			}
		}
		out[id] = h
	}
	return out, nil
}

// check demands that every attached shard is active.
func (r *real) check(shards []neon.ShardID) error {
	ctx, cancel := context.WithTimeout(context.Background(), startupTimeout)
	defer cancel()
	held, err := r.look(ctx)
	if err != nil {
		return err
	}
	for id, h := range held {
		for shard := range h.attached {
			if !slices.Contains(shards, shard) {
				return fmt.Errorf("pageserver %s has shard %s, which nobody created", id, shard)
			}
			var info struct {
				State struct {
					Slug string `json:"slug"`
				} `json:"state"`
			}
			if err := r.ask(ctx, "http://"+r.running()[id]+"/v1/tenant/"+shard.String(),
				&info); err != nil {
				return err
			}
			if info.State.Slug != "Active" {
				return fmt.Errorf("shard %s on pageserver %s is %s", shard, id, info.State.Slug)
			}
		}
	}
	return nil
}

func (r *real) close() error {
	r.mu.Lock()
	nodes := make([]*program, 0, len(r.nodes))
	for _, p := range r.nodes {
		nodes = append(nodes, p)
	}
	r.mu.Unlock()
	for _, p := range nodes {
		p.kill()
	}
	if r.broker != nil {
		r.broker.kill()
	}
	r.http.CloseIdleConnections()
	return r.door.close()
}

func hostPart(addr string) string { h, _, _ := net.SplitHostPort(addr); return h }
func portPart(addr string) string { _, p, _ := net.SplitHostPort(addr); return p }
