package cluster

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"quorate/cluster/internal/datadir"
	"quorate/cluster/internal/store"
	"quorate/internal/wait"
)

// identity is who this server is and which cluster it is in.
type identity struct {
	id        string
	disk      string // the id of the disk
	run       string // of this process
	advertise string
	httpAddr  string
	level     uint64
	ended     string // see greeting

	predecessors predecessorList

	version string

	dir       *datadir.Dir // nil without Config.DataDir
	disks     *datadir.KnownDisks
	clusterID atomic.Pointer[string]
	changed   wait.Signal            // clusterID has changed
	learnt    func()                 // called when the cluster's id became known
	made      atomic.Pointer[string] // the id that this server has made; nil if none

	setting sync.Mutex // one setCluster at a time
}

// openIdentity takes the data directory, if there is one, and reads it.
func openIdentity(cfg Config) (_ *identity, err error) {
	i := &identity{
		id: cfg.ID, advertise: cfg.Advertise, httpAddr: cfg.HTTPAddr, level: cfg.Level,
		version: cfg.Version, changed: wait.NewSignal(), run: datadir.NewID(),
	}
	i.clusterID.Store(&cfg.ClusterID)
	defer func() {
		if err != nil {
			i.close()
		}
	}()
	if cfg.DataDir != "" {
		if err := i.read(cfg); err != nil {
			return nil, err
		}
	}
	if i.disks, err = datadir.LoadKnownDisks(i.dir); err != nil {
		return nil, err
	}
	if i.id == "" {
		i.id = datadir.NewID()
	}
	return i, nil
}

func (i *identity) read(cfg Config) (err error) {
	if i.dir, err = datadir.Lock(cfg.DataDir); err != nil {
		return err
	}
	if i.id, err = i.dir.ServerID(cfg.ID, store.LogFile); err != nil {
		return err
	}
	if i.disk, err = i.dir.DiskID(store.LogFile); err != nil {
		return err
	}
	ended, err := i.dir.EndedClusters()
	if err != nil {
		return err
	}
	i.ended = strings.Join(ended, ",")
	if err := i.predecessors.load(i.dir); err != nil {
		return err
	}
	made, err := i.dir.MadeCluster()
	if err != nil {
		return err
	}
	if made != "" {
		i.made.Store(&made)
	}
	cluster, err := i.dir.ClaimCluster(cfg.ClusterID)
	i.clusterID.Store(&cluster)
	return err
}

// greeting is what this server tells every other one.
func (i *identity) greeting() greeting {
	return greeting{
		Cluster: i.cluster(), ID: i.id, Raft: i.advertise, HTTP: i.httpAddr, Disk: i.disk,
		Level: i.level, Version: i.version, Ended: i.ended, Run: i.run,
	}
}

// vouch compares the log with the rest of the directory.
func (i *identity) vouch(s *store.Store) error {
	if i.dir == nil {
		return nil
	}
	return i.dir.Vouch(store.LogFile, i.id, i.disk, i.cluster(), s)
}

// cluster returns the cluster's id, or "" while it is not known.
func (i *identity) cluster() string { return *i.clusterID.Load() }

// foundingID is the id under which this server may found a cluster: one that it makes
// itself, or has made before a crash. An id that came from others is that of a cluster
// which has state elsewhere, or may have.
func (i *identity) foundingID() (string, error) {
	i.setting.Lock()
	defer i.setting.Unlock()
	if have := i.cluster(); have != "" {
		return have, mayFound(have, i.madeCluster())
	}
	id := datadir.NewID()
	if i.dir != nil {
		if err := i.dir.SetMadeCluster(id); err != nil {
			return "", err
		}
	}
	i.made.Store(&id)
	return id, i.claim(id)
}

// mayFound returns an error if a server may not found a cluster under the id that it has.
func mayFound(have string, made bool) error {
	if made {
		return nil
	}
	return fmt.Errorf("%w: this server was invited to cluster %s, and founds none",
		ErrClusterMismatch, have)
}

// madeCluster reports whether this server is of the cluster whose id it has made.
func (i *identity) madeCluster() bool {
	made := i.made.Load()
	return made != nil && *made == i.cluster()
}

// setCluster is SetClusterID.
func (i *identity) setCluster(id string) error {
	i.setting.Lock()
	defer i.setting.Unlock()
	return i.claim(id)
}

func (i *identity) claim(id string) error {
	have := i.cluster()
	if have == id {
		return nil
	}
	if have != "" {
		return fmt.Errorf("%w: %q, not %q", ErrClusterMismatch, have, id)
	}
	if i.dir != nil {
		if _, err := i.dir.ClaimCluster(id); err != nil {
			return err
		}
	}
	i.clusterID.Store(&id)
	i.changed.Set()
	if i.learnt != nil {
		i.learnt()
	}
	return nil
}

func (i *identity) close() {
	if i.dir != nil {
		i.dir.Close()
	}
}
