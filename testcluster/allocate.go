package testcluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
	"quorate/testcluster/simpageserver"
)

// replicaSpec is what a controller keeps over its restarts.
type replicaSpec struct {
	id         string
	http, raft string // host:port
	dataDir    string // empty in Virtual

	// What a process listens on for others, and where they find its HTTP; with wires
	// these are not the addresses that they know, and use.
	raftListen, peerHTTP string
	logFile              string // empty in Virtual
	members              []cluster.Member
}

// allocate settles the addresses and directories of all controllers.
func (c *Cluster) allocate() error {
	b := &c.builder
	c.fleet = simpageserver.NewFleet(simpageserver.Options{
		Seed: b.Seed, Oracle: c.oracle(), Logger: b.Logger, Behaviour: b.Behaviour,
		Store: simpageserver.NewStore(b.Store),
	})
	specs := make([]replicaSpec, b.Controllers)
	var members []cluster.Member
	var ports []string // asked for all at once, so that none is found twice
	if b.Mode != Virtual {
		var err error
		if ports, err = freeAddresses(2 * len(specs)); err != nil {
			return err
		}
	}
	for i := range specs {
		s := &specs[i]
		s.id = fmt.Sprintf("c%d", i+1)
		if b.Mode == Virtual {
			s.http, s.raft = s.id+":80", s.id+":7000"
		} else {
			s.http, s.raft = ports[2*i], ports[2*i+1]
			s.raftListen, s.peerHTTP = s.raft, s.http
			dir := filepath.Join(c.dir, s.id)
			s.dataDir, s.logFile = filepath.Join(dir,
				"data"), filepath.Join(dir, "storage_controller.log")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		if b.Wires && b.Mode == Processes {
			if err := c.wire(s); err != nil {
				return err
			}
		}
		members = append(members, cluster.Member{ID: s.id, RaftAddr: s.raft})
		c.urls = append(c.urls, "http://"+s.http+"/")
	}
	for i, s := range specs {
		s.members = members
		switch b.Mode {
		case Virtual:
			c.replicas = append(c.replicas, c.newInProcess(i, s, c.memory.Host(s.id)))
		case Processes:
			c.replicas = append(c.replicas, c.newProcess(s))
		default:
			c.replicas = append(c.replicas, c.newInProcess(i, s, tcp{}))
		}
	}
	return nil
}

// wire makes others reach a controller by wires.
func (c *Cluster) wire(s *replicaSpec) (err error) {
	if c.wires == nil {
		c.wires = newWires()
	}
	if s.raft, err = c.wires.before(s.id, s.raftListen, true); err != nil {
		return err
	}
	s.peerHTTP, err = c.wires.before(s.id, s.http, false)
	return err
}

func (c *Cluster) granted(g fsm.Grant) { c.fleet.Oracle().Granted(g.Shard, g.Generation, g.Node) }

// freeAddresses finds loopback addresses that nobody uses at the moment.
func freeAddresses(n int) ([]string, error) {
	var found []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		found = append(found, l.Addr().String())
	}
	return found, nil
}

// tcp is the real network.
type tcp struct{}

func (tcp) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (tcp) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 3 * time.Second}
	return d.DialContext(ctx, "tcp", addr)
}

func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL
	}
	return u.Host
}

// Zone is the availability zone with a number.
func Zone(i int) neon.AZ { return neon.MakeAZ(fmt.Sprintf("us-east-2%c", 'a'+rune(i))) }

// addPageservers adds the pageservers to the fleet; ids begin at 1, zones are
// dealt in turn.
func (c *Cluster) addPageservers() error {
	for i := range max(0, c.builder.Pageservers) {
		if _, err := c.AddPageserver(neon.NodeID(i+1), Zone(i%c.builder.Zones)); err != nil {
			return err
		}
	}
	return nil
}

// AddPageserver adds a pageserver to the fleet without starting it. It registers
// itself when it starts.
func (c *Cluster) AddPageserver(id neon.NodeID, zone neon.AZ) (*simpageserver.Node, error) {
	host := fmt.Sprintf("ps%s", id)
	opt := simpageserver.NodeOptions{
		ID: id, AZ: zone, Token: c.Token("generations_api"), Dial: c.newTransport(host),
		Register:    true,
		Maintenance: c.builder.Maintenance, UpcallTimeout: 5 * time.Second,
	}
	for _, u := range c.urls {
		opt.Upcalls = append(opt.Upcalls, u+"upcall/v1/")
	}
	if c.memory != nil {
		opt.Listen = func() (net.Listener, error) {
			return c.memory.Host(host).
				Listen(host + ":9898")
		}
	}
	if c.keys != nil {
		opt.Authorize = func(token string) bool { return c.keys.allows(token, "pageserverapi") }
	}
	return c.fleet.AddNode(opt)
}

// startHook starts the simulated control plane.
func (c *Cluster) startHook() (err error) {
	c.hook = simpageserver.NewHook(simpageserver.HookOptions{
		Seed: c.builder.Seed, Oracle: c.oracle(),
	})
	var l net.Listener
	if c.memory != nil {
		l, err = c.memory.Host("hook").Listen("hook:80")
	} else {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		c.hook.Close()
		c.hook = nil
		return err
	}
	c.hookURL = "http://" + l.Addr().String()
	c.hookServer = &http.Server{Handler: c.hook, ReadHeaderTimeout: 10 * time.Second}
	c.hookDone.Go(func() { _ = c.hookServer.Serve(l) })
	return nil
}

// oracle makes the oracle when it is first asked for.
func (c *Cluster) oracle() *simpageserver.Oracle {
	if c.watch == nil {
		c.watch = simpageserver.NewOracle(simpageserver.OracleOptions{})
	}
	return c.watch
}
