// Package profile takes profiles of this process, and draws them.
//
// It knows nothing of requests: what may be asked for is for its caller to check.
package profile

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"runtime/pprof"
	"time"

	"quorate/api/neon"
)

// Profiler takes one CPU profile at a time: the runtime has no room for more.
type Profiler struct {
	slot   chan struct{} // taken while a profile runs
	cancel chan struct{} // ends it early
}

// New returns a profiler. There may be one for each process.
func New() *Profiler {
	return &Profiler{slot: make(chan struct{}, 1), cancel: make(chan struct{})}
}

// acquire takes the slot. With force it ends the profile that holds it.
func (p *Profiler) acquire(ctx context.Context, force bool) error {
	select {
	case p.slot <- struct{}{}:
		return nil
	default:
	}
	for force {
		select {
		case p.slot <- struct{}{}:
			return nil
		case p.cancel <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return neon.Errorf(neon.Conflict, "profiler already running (use ?force=true to cancel it)")
}

// CPU says how to take a CPU profile.
type CPU struct {
	Duration time.Duration
	Force    bool // end the one that is being taken
}

// CPU samples this process for a while. The profile is not compressed.
func (p *Profiler) CPU(ctx context.Context, c CPU) ([]byte, error) {
	if err := p.acquire(ctx, c.Force); err != nil {
		return nil, err
	}
	defer func() { <-p.slot }()
	var packed bytes.Buffer
	if err := pprof.StartCPUProfile(&packed); err != nil {
		return nil, neon.Errorf(neon.Conflict, "profiler already running: %w", err)
	}
	timer := time.NewTimer(c.Duration)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.cancel:
	case <-ctx.Done():
	}
	pprof.StopCPUProfile()
	z, err := gzip.NewReader(&packed)
	if err != nil {
		return nil, neon.Errorf(neon.Internal, "profile: %w", err)
	}
	return io.ReadAll(z)
}

// Heap says what is in use on the heap. The profile is compressed.
func Heap() ([]byte, error) {
	var data bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&data, 0); err != nil {
		return nil, neon.Errorf(neon.Internal, "profile: %w", err)
	}
	return data.Bytes(), nil
}
