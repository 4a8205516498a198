package api

import (
	"bytes"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// textFormat is the content type of the metrics.
const textFormat = "text/plain; version=0.0.4"

// scrapeHandler answers with the metrics.
type scrapeHandler struct{ scrape http.Handler }

// metrics prints all series.
func (h scrapeHandler) metrics(c *call) (answer, error) {
	return scraped(h.scrape, c.request), nil
}

// newScrape prints the metrics of a registry.
func newScrape(registry *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true})
}

// scraped is the answer to a scrape.
func scraped(scrape http.Handler, r *http.Request) answer {
	w := &recorder{header: http.Header{}}
	plain := r.Clone(r.Context())
	plain.Header = http.Header{} // there is one format, whatever is asked for
	scrape.ServeHTTP(w, plain)
	w.header.Set("Content-Type", textFormat)
	return answer{status: w.status, header: w.header, body: w.body.Bytes()}
}

// recorder holds what an http.Handler writes.
type recorder struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
