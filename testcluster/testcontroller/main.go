// Command testcontroller is the storage controller with a disk that fails and a memory
// that is spoiled on request. It is for tests and measurements of whole processes:
// SIGUSR1 makes the writes of the log hang, SIGALRM makes them fail for want of space,
// and SIGUSR2 heals them. SIGWINCH spoils the state.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"quorate/cluster"
	"quorate/cluster/clustertest"
	"quorate/internal/storagecontroller"
	"quorate/testcluster/spoil"
)

// seams are what differs from the storage controller. A test that builds a later
// version adds to them.
var seams storagecontroller.Seams

func main() {
	f := &faults{disk: clustertest.NewFileDisk()}
	seams.Disk, seams.Machine = f.disk, f.machine
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH)
	go f.obey(signals)
	os.Exit(storagecontroller.Run(os.Args[1:], seams))
}

// faults are what can be made to fail.
type faults struct {
	disk   *clustertest.Disk
	memory atomic.Pointer[spoil.Machine] // nil before the start
}

func (f *faults) machine(m cluster.Machine) cluster.Machine {
	spoilt := spoil.New(m)
	f.memory.Store(spoilt)
	return spoilt
}

// obey makes the faults that the signals say, until the process ends.
func (f *faults) obey(signals <-chan os.Signal) {
	for s := range signals {
		switch s {
		case syscall.SIGUSR1:
			f.disk.Hang()
		case syscall.SIGALRM:
			f.disk.Fail(syscall.ENOSPC)
		case syscall.SIGWINCH:
			if m := f.memory.Load(); m != nil {
				if err := m.Spoil(); err != nil {
					fmt.Fprintln(os.Stderr, "testcontroller:", err)
				}
			}
		default:
			f.disk.Fail(nil)
			f.disk.Resume()
		}
	}
}
