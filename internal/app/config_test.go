package app

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"quorate/internal/serve"
)

func TestCAFileIsTrustedByOutgoingCalls(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	der := srv.Certificate().Raw
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, trusted := range map[string]bool{"": false, file: true} {
		out, err := newOutgoing(&Config{CAFile: name, Network: serve.TCP{}})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: out.pooled()}).Get(srv.URL)
		if err == nil {
			_ = resp.Body.Close()
		}
		if (err == nil) != trusted {
			t.Errorf("with the CA file %q: %v", name, err)
		}
		out.closeIdle()
	}
	if err := os.WriteFile(file, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{file, file + ".none"} {
		if _, err := New(t.Context(), Config{
			CAFile: bad, HTTP: HTTP{Config: serve.Config{Listen: "127.0.0.1:0"}},
		}); err == nil {
			t.Errorf("it starts with the CA file %s", bad)
		}
	}
}

func TestAddressesNeedNoResolver(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for host, ok := range map[string]bool{"127.0.0.1": true, "::1": true, "nowhere.invalid": false} {
		if err := resolve(ended, host); (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
	}
}
