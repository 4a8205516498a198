package api

import (
	"maps"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"quorate/api/internal/forward"
	"quorate/api/internal/profile"
	"quorate/api/neon"
	"quorate/internal/metrics"
)

// NewCandidate answers for an instance that waits for another one to step down.
// It shows that it is there, and refuses everything else.
func NewCandidate() http.Handler {
	registry := prometheus.NewRegistry()
	metrics.RegisterCandidate(registry)
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scrape := newScrape(registry)
	own := profileHandler{profile.New()}
	profiles := map[string]func(*call) (answer, error){
		"/profile/cpu": own.cpu, "/profile/heap": own.heap,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set(requestIDHeader, requestID(r.Header))
		a := answer{status: http.StatusServiceUnavailable, body: null}
		a.header = http.Header{"Content-Type": jsonType}
		gets := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch path := r.URL.EscapedPath(); {
		case gets && path == "/metrics":
			a = scraped(scrape, r)
		case r.Method == http.MethodGet && profiles[path] != nil:
			var err error
			if a, err = profiles[path](&call{ctx: r.Context(), request: r}); err != nil {
				a = errorAnswer(err)
			}
		case gets && path == "/status":
			a.status = http.StatusOK
		case gets && path == "/ready":
		default:
			a = errorAnswer(errCandidate)
			if forward.Forwarded(r) {
				// the replica that forwarded it here waits a little longer
				h.Set(forward.RetryHeader, string(neon.NotLeader))
			}
		}
		if a.status == 0 {
			a.status = http.StatusOK
		}
		maps.Copy(h, a.header)
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body)
	})
}

var errCandidate = neon.Errorf(neon.Unavailable, "Current leadership status is candidate")
