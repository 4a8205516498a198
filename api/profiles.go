package api

import (
	"bytes"
	"runtime/pprof"
	"time"

	"quorate/api/neon"
)

// profileHandler answers with profiles of this process.
type profileHandler struct{ profiler *profiler }

func (h profileHandler) cpu(c *call) (answer, error) {
	format, err := c.profileFormat(formatPprof, formatSVG)
	if err != nil {
		return answer{}, err
	}
	seconds, ok, err := c.queryUint("seconds")
	switch {
	case err != nil:
		return answer{}, err
	case !ok:
		seconds = profileSeconds
	case seconds < 1 || seconds > profileMost:
		return answer{}, neon.Errorf(neon.BadRequest, "duration must be 1-%d secs", profileMost)
	}
	// The rate is checked only: the runtime samples a hundred times a second.
	rate, _, err := c.queryUint("frequency")
	if err != nil {
		return answer{}, err
	}
	if rate > profileMostPerSec {
		return answer{}, neon.Errorf(neon.BadRequest, "frequency must be <=%d Hz",
			profileMostPerSec)
	}
	force, _, err := c.queryBool("force")
	if err != nil {
		return answer{}, err
	}
	data, err := h.profiler.cpu(c.ctx, time.Duration(seconds)*time.Second, force)
	if err != nil {
		return answer{}, err
	}
	return profileAnswer(format, "profile.pb", data)
}

func (h profileHandler) heap(c *call) (answer, error) {
	format, err := c.profileFormat(formatPprof, formatSVG, formatJemalloc)
	if err != nil {
		return answer{}, err
	}
	if format == formatJemalloc {
		return answer{}, neon.Errorf(neon.Internal,
			"heap profiling not enabled: there is no jemalloc, use format=pprof")
	}
	var data bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&data, 0); err != nil {
		return answer{}, neon.Errorf(neon.Internal, "profile: %w", err)
	}
	return profileAnswer(format, "heap.pb.gz", data.Bytes())
}
