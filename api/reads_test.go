package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"quorate/api/neon"
)

// BenchmarkReads is what a handler costs, without the connection and without agreement.
func BenchmarkReads(b *testing.B) {
	r := newReplica(b, setup{})
	r.setLeader(0)
	r.addNodes(3)
	id := neon.TenantID{7}
	body := fmt.Sprintf(`{"new_tenant_id":"%s","shard_parameters":{"count":4,"stripe_size":8}}`, id)
	if got := r.ask(b.Context(), http.MethodPost, "/v1/tenant", body); got.status != http.StatusCreated {
		b.Fatal(got)
	}
	for _, c := range []struct{ name, path string }{
		{"locate", "/debug/v1/tenant/%s/locate"}, {"describe", "/control/v1/tenant/%s"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			req := httptest.NewRequest(http.MethodGet, fmt.Sprintf(c.path, id), nil)
			for b.Loop() {
				delete(req.Header, requestIDHeader)
				w := httptest.NewRecorder()
				r.server.ServeHTTP(w, req)
				if w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}
