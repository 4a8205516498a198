package serve

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeCertificate makes a certificate with a serial number.
func writeCertificate(t *testing.T, h Config, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "replica"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		h.CertFile: {Type: "CERTIFICATE", Bytes: cert},
		h.KeyFile:  {Type: "EC PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		stamp := time.Now().Add(time.Duration(serial) * time.Hour)
		if err := os.Chtimes(file, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
}

// serving starts a server that answers with text, and stops it with the test.
func serving(t *testing.T, cfg Config, log *slog.Logger, text string) *Server {
	t.Helper()
	s, err := Listen(cfg, TCP{}, log)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(context.Background(), answer(text))
	t.Cleanup(func() { s.Stop(context.Background()) })
	return s
}

func answer(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, text)
	})
}

// withCertificate is a configuration with a certificate that is checked at every use.
func withCertificate(t *testing.T) Config {
	dir := t.TempDir()
	h := Config{
		ListenTLS: "127.0.0.1:0", CertFile: filepath.Join(dir, "crt"),
		KeyFile: filepath.Join(dir, "key"), CertReload: time.Nanosecond,
	}
	writeCertificate(t, h, 1)
	return h
}

func TestRenewedCertificateIsServed(t *testing.T) {
	h := withCertificate(t)
	var log bytes.Buffer
	s := serving(t, h, slog.New(slog.NewTextHandler(&log, nil)), "x")
	serial := func() int64 {
		c, err := tls.Dial("tcp", s.Addrs()[0].String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Fatalf("serial %d", got)
	}
	writeCertificate(t, h, 2)
	if got := serial(); got != 2 {
		t.Errorf("serial %d after the renewal", got)
	}
	if err := os.WriteFile(h.CertFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 2 {
		t.Errorf("a broken file replaced the certificate: serial %d", got)
	}
	if strings.Contains(log.String(), "WARN") {
		t.Errorf("one bad check is a warning:\n%s", &log)
	}
	if serial(); !strings.Contains(log.String(), "WARN") {
		t.Errorf("two bad checks are no warning:\n%s", &log)
	}
}

func TestTheHandlerIsReplacedWhileTheServerRuns(t *testing.T) {
	s := serving(t, Config{Listen: "127.0.0.1:0"}, slog.New(slog.DiscardHandler), "first")
	get := func() (string, bool) {
		resp, err := http.Get(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return string(text), resp.Close
	}
	if text, closes := get(); text != "first" || closes {
		t.Errorf("%q, closes %v", text, closes)
	}
	s.Handle(answer("second"))
	s.Release(t.Context())
	if text, closes := get(); text != "second" || !closes {
		t.Errorf("%q, closes %v", text, closes)
	}
}

// A client may open a connection and send nothing on it.
func TestAStopDoesNotWaitForUnusedConnections(t *testing.T) {
	s, err := Listen(Config{Listen: "127.0.0.1:0"}, TCP{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Start(context.Background(), answer("x"))
	c, err := TCP{}.Dial(t.Context(), s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begun := time.Now()
	s.Stop(context.Background())
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("stopped after %s", took)
	}
}

func TestAStartThatFailsLeavesNoListener(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, cfg := range []Config{
		{}, {Listen: taken.Addr().String()},
		{Listen: "127.0.0.1:0", ListenTLS: "127.0.0.1:0", CertFile: "none", KeyFile: "none"},
	} {
		if _, err := Listen(cfg, TCP{}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%+v: listens", cfg)
		}
	}
}
