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
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/internal/logbuffer"
)

// authority signs certificates of replicas.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key}
}

func (a *authority) root() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// write replaces the file with some content, with another time.
func (a *authority) write(file string, content []byte) {
	a.t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		a.t.Fatal(err)
	}
	stamp := time.Now().Add(time.Duration(len(content)) * time.Second)
	if err := os.Chtimes(file, stamp, stamp); err != nil {
		a.t.Fatal(err)
	}
}

// sign writes a certificate for these uses, and its key.
func (a *authority) sign(f PeerFiles, name string, uses ...x509.ExtKeyUsage) {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, ExtKeyUsage: uses,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	key, err := x509.MarshalECPrivateKey(a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(f.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(f.Key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}))
}

// handshake connects one configuration to another.
func handshake(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			s := tls.Server(c, server)
			if err = s.Handshake(); err == nil && len(s.ConnectionState().VerifiedChains) == 0 {
				t.Error("the server has verified nothing")
			}
			_ = s.Close()
		}
		done <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	clientErr = tls.Client(raw, client).Handshake()
	if clientErr != nil {
		_ = raw.Close()
	}
	return clientErr, <-done
}

func TestPeersNeedACertificateOfTheirRootsWhichAreReloaded(t *testing.T) {
	log, dir := slog.New(slog.DiscardHandler), t.TempDir()
	one, two := newAuthority(t, "one"), newAuthority(t, "two")
	files := func(name string) PeerFiles {
		return PeerFiles{
			Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key"),
			CA: filepath.Join(dir, name+".roots"), Reload: time.Nanosecond,
		}
	}
	open := func(f PeerFiles) *tls.Config {
		conf, err := PeerTLS(f, log)
		if err != nil {
			t.Fatal(err)
		}
		return conf
	}
	fa, fb := files("a"), files("b")
	for _, f := range []PeerFiles{fa, fb} {
		one.write(f.CA, one.root())
	}
	one.sign(fa, "a")
	one.sign(fb, "b")
	a, b := open(fa), open(fb)
	check := func(what string, fits bool) {
		t.Helper()
		for _, pair := range [][2]*tls.Config{{a, b}, {b, a}} {
			clientErr, serverErr := handshake(t, pair[0], pair[1])
			if (clientErr == nil && serverErr == nil) != fits {
				t.Errorf("%s: client %v, server %v", what, clientErr, serverErr)
			}
		}
	}
	check("one authority", true)
	two.sign(fb, "b")
	check("b has a certificate of another authority", false)
	one.write(fa.CA, append(one.root(), two.root()...))
	one.write(fb.CA, append(two.root(), one.root()...))
	check("both trust both", true)
	two.sign(fa, "a")
	one.write(fa.CA, two.root())
	one.write(fb.CA, two.root())
	check("both changed to the other", true)
	one.write(fa.CA, one.root())
	one.write(fb.CA, one.root())
	check("neither trusts the other any more", false)
	two.write(fa.CA, []byte("broken"))
	two.write(fb.CA, two.root())
	check("b trusts a again, a has kept its roots", false)
	two.write(fa.CA, two.root())
	check("repaired", true)
	two.sign(fa, "a", x509.ExtKeyUsageClientAuth)
	if err, _ := handshake(t, b, a); err == nil {
		t.Error("a certificate for clients only was taken for a server's")
	}
	for _, f := range []PeerFiles{
		{Cert: "none", Key: fa.Key, CA: fa.CA}, {Cert: fa.Cert, Key: fa.Key, CA: "none"},
		{Cert: fa.Cert, Key: fa.Key, CA: fa.Key},
	} {
		if _, err := PeerTLS(f, log); err == nil {
			t.Errorf("taken: %+v", f)
		}
	}
	if verifyServer(nil, nil) == nil {
		t.Error("no certificate was taken")
	}
}

// lasting is a certificate that expires at some time.
type lasting validity

func (lasting) renew()           {}
func (l lasting) time() validity { return validity(l) }

func TestCertificatesAreWarnedOfInTimeOnceADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logbuffer.Buffer
		c := NewCertificates(time.Hour, slog.New(slog.NewTextHandler(&log, nil)))
		end := time.Now().Add(33*24*time.Hour + time.Minute)
		from := time.Now().AddDate(-1, 0, 0)
		c.add(&watched{name: "peers", file: lasting{from, end}})
		c.add(&watched{name: "https", file: lasting{from, end.AddDate(1, 0, 0)}})
		ctx, cancel := context.WithCancel(t.Context())
		go c.Run(ctx)
		for _, step := range []struct {
			after    time.Duration
			warnings int
			text     string
		}{
			{2 * 24 * time.Hour, 0, ""},
			{26 * time.Hour, 1, "days_left=29"},
			{20 * time.Hour, 1, ""},
			{24 * time.Hour, 2, "days_left=28"},
			{28 * 24 * time.Hour, 30, "days_left=0"},
			{48 * time.Hour, 32, "has expired"},
		} {
			time.Sleep(step.after)
			synctest.Wait()
			if n := strings.Count(log.String(), "WARN"); n != step.warnings ||
				!strings.Contains(log.String(), step.text) ||
				strings.Contains(log.String(), "https") {
				t.Fatalf("after %v more: %d warnings\n%s", step.after, n, &log)
			}
		}
		cancel()
		want := Expiry{"peers", end}
		if all := c.Expiries(); len(all) != 2 || all[0] != want {
			t.Errorf("%v", all)
		}
	})
	var none *Certificates
	none.Run(t.Context())
	if none.add(nil); none.Expiries() != nil {
		t.Error("a nil list is not empty")
	}
}

// One that is renewed each day is no warning each day.
func TestAShortCertificateIsAWarningInItsLastThird(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := NewCertificates(time.Hour, slog.New(slog.NewTextHandler(&log, nil)))
		c.add(&watched{name: "peers", file: lasting{time.Now(), time.Now().Add(24 * time.Hour)}})
		time.Sleep(15 * time.Hour)
		if c.Reload(); log.Len() > 0 {
			t.Errorf("nine hours before: %s", &log)
		}
		time.Sleep(2 * time.Hour)
		if c.Reload(); log.Len() == 0 {
			t.Error("no warning seven hours before")
		}
	})
}

func TestAServedCertificateIsOnTheList(t *testing.T) {
	h, log := withCertificate(t), slog.New(slog.DiscardHandler)
	h.Certificates = NewCertificates(0, log)
	serving(t, h, log, "x")
	peers := PeerFiles{
		Cert: h.CertFile, Key: h.KeyFile, CA: h.CertFile, Certificates: h.Certificates,
	}
	if _, err := PeerTLS(peers, log); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range h.Certificates.Expiries() {
		left := time.Until(e.NotAfter)
		if all = append(all, e.Name); left <= 0 || left > time.Hour {
			t.Errorf("%s expires in %v", e.Name, left)
		}
	}
	if got := strings.Join(all, " "); got != "https peers peer_roots" {
		t.Errorf("on the list: %s", got)
	}
}
