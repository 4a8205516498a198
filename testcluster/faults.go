package testcluster

import (
	"errors"

	"quorate/api/neon"
)

// faulty is a controller that things can be done to.
type faulty interface {
	freezable
	disk
	memory
	peer
}

// freezable is what can be frozen.
type freezable interface {
	pause() error
	resume() error
}

// disk is the disk of a controller.
type disk interface {
	hangDisk() error
	fillDisk() error
	healDisk() error
}

// memory is where a controller has its state.
type memory interface {
	spoilState() error
}

// peer is a controller as the network sees it. What it is blocked from replaces what
// it was blocked from before.
type peer interface {
	block(addresses ...string) error      // other controllers
	blockNodes(addresses ...string) error // pageservers
	raftAddr() string
	httpAddr() string
}

// faults injects faults into controllers.
type faults struct {
	victims []faulty
	addrOf  func(neon.NodeID) string // of pageservers
}

// Pause stops a controller: as a process by SIGSTOP, otherwise by holding
// back all that it sends and receives.
func (f *faults) Pause(i int) error { return f.victims[i].pause() }

// Resume ends Pause.
func (f *faults) Resume(i int) error { return f.victims[i].resume() }

// HangDisk makes all writes of a controller's log wait.
func (f *faults) HangDisk(i int) error { return f.victims[i].hangDisk() }

// FillDisk makes all writes of a controller's log fail as those to a full disk do.
func (f *faults) FillDisk(i int) error { return f.victims[i].fillDisk() }

// HealDisk ends HangDisk and FillDisk.
func (f *faults) HealDisk(i int) error { return f.victims[i].healDisk() }

// SpoilState makes the state of a controller differ from what the log says: it has the
// pageserver spoil.Node. The controller does not notice. Processes need DiskFaults, and
// nothing waits until it has happened.
func (f *faults) SpoilState(i int) error { return f.victims[i].spoilState() }

// Partition divides the controllers into groups that do not hear each other. A
// controller in no group hears no other. Pageservers and clients still reach all.
func (f *faults) Partition(groups ...[]int) error {
	side := make(map[int]int)
	for n, g := range groups {
		for _, i := range g {
			side[i] = n + 1
		}
	}
	for i, v := range f.victims {
		var blocked []string
		for j, other := range f.victims {
			if i != j && (side[i] == 0 || side[i] != side[j]) {
				blocked = append(blocked, other.raftAddr(), other.httpAddr())
			}
		}
		if err := v.block(blocked...); err != nil {
			return err
		}
	}
	return nil
}

// Cut lets nothing pass between two controllers, which both hear all the others. It
// replaces what was cut between them and others.
func (f *faults) Cut(i, j int) error {
	a, b := f.victims[i], f.victims[j]
	return errors.Join(a.block(b.raftAddr(), b.httpAddr()), b.block(a.raftAddr(), a.httpAddr()))
}

// Heal ends Partition and Cut.
func (f *faults) Heal() error {
	for _, v := range f.victims {
		if err := v.block(); err != nil {
			return err
		}
	}
	return nil
}

// CutOff lets nothing pass from controller i to the pageservers, nor back on
// connections that it opened. Their upcalls still arrive. It replaces what was cut
// off before: without pageservers, all can be reached.
func (f *faults) CutOff(i int, nodes ...neon.NodeID) error {
	var addresses []string
	for _, id := range nodes {
		addresses = append(addresses, f.addrOf(id))
	}
	return f.victims[i].blockNodes(addresses...)
}
