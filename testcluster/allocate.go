package testcluster

import (
	"fmt"
	"os"
	"path/filepath"

	"quorate/cluster"
)

// replicaSpec is what a controller keeps over its restarts.
type replicaSpec struct {
	id         string
	http, raft string // host:port
	dataDir    string // empty in Virtual

	// What a process listens on for others, and where they find its HTTP. With wires
	// these are not the addresses that they know, and use.
	raftListen, peerHTTP string
	logFile              string           // empty in Virtual
	members              []cluster.Member // who found the cluster
	joins                bool             // members are those before it, and it joins them
}

// allocate chooses the addresses and directories of all controllers and makes them.
func (c *Cluster) allocate() error {
	b := &c.builder
	if b.Joiners > 0 && b.Mode != Processes {
		return fmt.Errorf("joiners: %w", ErrMode)
	}
	specs := make([]replicaSpec, b.Controllers+b.Joiners)
	var ports []string // asked for all at once, so that none is found twice
	if b.Mode != Virtual {
		var err error
		if ports, err = freeAddresses(2 * len(specs)); err != nil {
			return err
		}
	}
	var members []cluster.Member
	for i := range specs {
		s := &specs[i]
		s.id = fmt.Sprintf("c%d", i+1)
		if b.Mode == Virtual {
			s.http, s.raft, s.raftListen = s.id+":80", s.id+":7000", s.id+":7000"
		} else if err := s.locate(c.dir, ports[2*i], ports[2*i+1]); err != nil {
			return err
		}
		if b.Wires && b.Mode == Processes {
			if err := c.wire(s); err != nil {
				return err
			}
		}
		if b.Mode != Virtual && len(specs) == 1 {
			s.raftListen = "127.0.0.1:0" // nobody calls it, so it need not wait for that
		}
		members = append(members, cluster.Member{ID: s.id, RaftAddr: s.raft})
		url := "http://" + s.http + "/"
		c.clients.urls = append(c.clients.urls, url)
		c.pageservers.upcalls = append(c.pageservers.upcalls, url+"upcall/v1/")
	}
	c.controllers.first = b.Controllers
	for i, s := range specs {
		if s.members = members[:b.Controllers]; i >= b.Controllers {
			s.members, s.joins = members[:i], true
		}
		r := c.newReplica(s)
		c.controllers.replicas = append(c.controllers.replicas, r)
		c.faults.victims = append(c.faults.victims, r)
	}
	return nil
}

func (c *Cluster) newReplica(s replicaSpec) replica {
	if c.builder.Mode == Processes {
		return c.newProcess(s)
	}
	return c.newInProcess(s)
}

// locate puts a controller on ports and into a directory of its own.
func (s *replicaSpec) locate(root, http, raft string) error {
	s.http, s.raft, s.raftListen, s.peerHTTP = http, raft, raft, http
	dir := filepath.Join(root, s.id)
	s.dataDir = filepath.Join(dir, "data")
	s.logFile = filepath.Join(dir, "storage_controller.log")
	return os.MkdirAll(dir, 0o755)
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
