package api

import (
	"net/http"
	"slices"
	"time"

	"quorate/api/internal/profile"
	"quorate/api/neon"
)

const (
	profileSeconds    = 5  // of a CPU profile, when nothing else is asked for
	profileMost       = 60 // seconds
	profileMostPerSec = 1000
)

// profileHandler answers with profiles of this process.
type profileHandler struct{ profiler *profile.Profiler }

func (h profileHandler) cpu(c *call) (answer, error) {
	format, err := profileFormat(c, formatPprof, formatSVG)
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
	data, err := h.profiler.CPU(c.ctx,
		profile.CPU{Duration: time.Duration(seconds) * time.Second, Force: force})
	if err != nil {
		return answer{}, err
	}
	return profileAnswer(format, "profile.pb", data)
}

func (h profileHandler) heap(c *call) (answer, error) {
	format, err := profileFormat(c, formatPprof, formatSVG, formatJemalloc)
	if err != nil {
		return answer{}, err
	}
	if format == formatJemalloc {
		return answer{}, neon.Errorf(neon.Internal,
			"heap profiling not enabled: there is no jemalloc, use format=pprof")
	}
	data, err := profile.Heap()
	if err != nil {
		return answer{}, err
	}
	return profileAnswer(format, "heap.pb.gz", data)
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
func profileFormat(c *call, known ...string) (string, error) {
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
	svg, err := profile.FlameGraph(data)
	if err != nil {
		return answer{}, neon.Errorf(neon.Internal, "profile: %w", err)
	}
	return answer{body: svg, header: http.Header{"Content-Type": {"image/svg+xml"}}}, nil
}
