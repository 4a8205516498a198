package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"runtime/pprof"
	"slices"
	"time"

	"quorate/api/neon"
)

const (
	profileSeconds    = 5  // of a CPU profile, when nothing else is asked for
	profileMost       = 60 // seconds
	profileMostPerSec = 1000
)

// profiler takes one CPU profile at a time: the runtime has no room for more.
type profiler struct {
	slot   chan struct{} // taken while a profile runs
	cancel chan struct{} // ends it early
}

func newProfiler() *profiler {
	return &profiler{slot: make(chan struct{}, 1), cancel: make(chan struct{})}
}

// acquire takes the slot, by force from whoever has it.
func (p *profiler) acquire(ctx context.Context, force bool) error {
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

// cpu samples this process for a while.
func (p *profiler) cpu(ctx context.Context, d time.Duration, force bool) ([]byte, error) {
	if err := p.acquire(ctx, force); err != nil {
		return nil, err
	}
	defer func() { <-p.slot }()
	var packed bytes.Buffer
	if err := pprof.StartCPUProfile(&packed); err != nil {
		return nil, neon.Errorf(neon.Conflict, "profiler already running: %w", err)
	}
	timer := time.NewTimer(d)
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

// attachment answers with a file.
func attachment(name string, data []byte) answer {
	return answer{body: data, header: http.Header{
		"Content-Type":        {"application/octet-stream"},
		"Content-Disposition": {`attachment; filename="` + name + `"`},
	}}
}

// The forms of a profile.
const (
	formatPprof    = "pprof"
	formatSVG      = "svg"
	formatJemalloc = "jemalloc" // of another allocator than Go's
)

// profileFormat reads what the profile is to look like.
func (c *call) profileFormat(known ...string) (string, error) {
	format, ok, err := c.query("format")
	switch {
	case err != nil:
		return "", err
	case !ok:
		return formatPprof, nil
	case !slices.Contains(known, format):
		return "", neon.Errorf(neon.BadRequest, "invalid format %s", format)
	}
	return format, nil
}

// profileAnswer answers with a profile as a file or as a picture.
func profileAnswer(format, name string, data []byte) (answer, error) {
	if format != formatSVG {
		return attachment(name, data), nil
	}
	svg, err := flameGraph(data)
	if err != nil {
		return answer{}, neon.Errorf(neon.Internal, "profile: %w", err)
	}
	return answer{body: svg, header: http.Header{"Content-Type": {"image/svg+xml"}}}, nil
}
