package demo

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A pageserver is asked with a body of null. A refusal, and a document that breaks off,
// are errors.
func TestPageserversAreAsked(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /whole", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"id":` + strings.Repeat("1", int(r.ContentLength)) + `}`))
	})
	mux.HandleFunc("GET /cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte(`{"id":7}`))
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	r := &real{http: srv.Client()}
	var got struct{ ID int }
	if err := r.ask(t.Context(), srv.URL+"/whole", &got); err != nil || got.ID != 1111 {
		t.Errorf("asked with a body of %d digits: %v", got.ID, err)
	}
	err := r.ask(t.Context(), srv.URL+"/missing", nil)
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a refusal: %v", err)
	}
	if err := r.ask(t.Context(), srv.URL+"/cut", &got); err == nil {
		t.Error("a document that broke off is taken for a whole one")
	}
	if r.answers(t.Context(), srv.URL+"/missing") || !r.answers(t.Context(), srv.URL+"/whole") {
		t.Error("it answers where it does not, or not where it does")
	}
}
