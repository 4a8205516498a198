// Command testcontroller is the storage controller with a disk that fails on request.
// It is for tests and measurements of whole processes: SIGUSR1 makes the writes of the
// log hang, SIGALRM makes them fail for want of space, and SIGUSR2 heals them.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"quorate/cluster/clustertest"
	"quorate/internal/storagecontroller"
)

// seams are what differs from the storage controller. A test that builds a later
// version adds to them.
var seams storagecontroller.Seams

func main() {
	disk := clustertest.NewFileDisk()
	seams.Disk = disk
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM)
	go obey(disk, signals)
	os.Exit(storagecontroller.Run(os.Args[1:], seams))
}

// obey makes the disk do what the signals say, until the process ends.
func obey(disk *clustertest.Disk, signals <-chan os.Signal) {
	for s := range signals {
		switch s {
		case syscall.SIGUSR1:
			disk.Hang()
		case syscall.SIGALRM:
			disk.Fail(syscall.ENOSPC)
		default:
			disk.Fail(nil)
			disk.Resume()
		}
	}
}
