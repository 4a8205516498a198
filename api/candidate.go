package api

import (
	"net/http"
	"strconv"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"quorate/internal/neon"
)

// NewCandidate answers for an instance that waits for another one to step down.
// It shows that it is there, and refuses everything else.
func NewCandidate() http.Handler {
	registry := prometheus.NewRegistry()
	status := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: metricPrefix + "leadership_status", Help: "1 for what this replica is",
	}, []string{"status"})
	for _, s := range []string{"leader", "stepped_down"} {
		status.WithLabelValues(s).Set(0)
	}
	status.WithLabelValues("candidate").Set(1)
	registry.MustRegister(status, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scrape := promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if h[requestIDHeader] = r.Header[requestIDHeader]; h.Get(requestIDHeader) == "" {
			h.Set(requestIDHeader, uuid.NewString())
		}
		a := answer{status: http.StatusServiceUnavailable, body: null}
		switch path := r.URL.EscapedPath(); {
		case r.Method == http.MethodGet && path == "/metrics":
			text := &recorder{header: http.Header{}}
			scrape.ServeHTTP(text, r)
			h["Content-Type"] = text.header["Content-Type"]
			h.Set("Content-Length", strconv.Itoa(text.body.Len()))
			_, _ = w.Write(text.body.Bytes())
			return
		case r.Method == http.MethodGet && path == "/status":
			a.status = http.StatusOK
		case r.Method == http.MethodGet && path == "/ready":
		default:
			a = errorAnswer(errCandidate)
			if r.Header.Get(hopHeader) != "" {
				h.Set(againHeader, string(neon.NotLeader)) // whoever carried it here waits a little longer
			}
		}
		h["Content-Type"] = jsonType
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body)
	})
}

var errCandidate = neon.Errorf(neon.Unavailable, "Current leadership status is candidate")
