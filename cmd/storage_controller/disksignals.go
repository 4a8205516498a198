package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"quorate/cluster"
)

// hangBySignal puts a disk between the replica and its log that SIGUSR1 makes
// hang, SIGALRM fills up and SIGUSR2 heals: what a failing device does, for tests
// and measurements of whole processes. The returned function joins it.
func hangBySignal(ctx context.Context, cfg *cluster.Config) (stop func()) {
	disk := cluster.NewFaultyDisk()
	cfg.Stores = disk.Open
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
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
	}()
	return func() {
		signal.Stop(signals)
		disk.Resume() // a replica that is stopped must not wait for it
		cancel()
		<-done
	}
}
