package bench

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestTheHandWrittenClientReadsWholeAnswers: with a length, and in parts, one after the other
// on one connection.
func TestTheHandWrittenClientReadsWholeAnswers(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/whole":
			_, _ = io.WriteString(w, "all of it")
		case "/parts":
			for range 3 {
				_, _ = io.WriteString(w, strings.Repeat("part", 1000))
				w.(http.Flusher).Flush()
			}
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for range 3 {
		for _, path := range []string{"/parts", "/whole"} {
			if err := get(conn, in, "host", path); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
	}
	if err := get(conn, in, "host", "/none"); err == nil {
		t.Error("a failure is taken for an answer")
	}
}
