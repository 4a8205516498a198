package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	*testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{T: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, IsCA: true,
		BasicConstraintsValid: true,
		NotBefore:             time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// sign writes a certificate for the loopback address, and its key.
func (a *authority) sign(e *environment, name string, serial int64) {
	a.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.Fatal(err)
	}
	text, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.Fatal(err)
	}
	e.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: text}))
	e.write(name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	stamp := time.Now().Add(time.Duration(serial) * time.Minute)
	for _, file := range []string{name + ".key", name + ".crt"} {
		if err := os.Chtimes(e.path(file), stamp, stamp); err != nil {
			a.Fatal(err)
		}
	}
}

// secure are three controllers that talk to each other and to clients over TLS.
type secure struct {
	*environment
	ca     *authority
	client *http.Client
	https  []string
	args   [][]string
	cmds   []*exec.Cmd
}

func startSecure(t *testing.T) *secure {
	s := &secure{environment: newEnvironment(t), ca: newAuthority(t)}
	s.write("root.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.cert.Raw}))
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.cert)
	s.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
	}}
	public, err := os.ReadFile(s.path("auth_public_key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	var ports []int
	for range 6 {
		ports = append(ports, freePort(t))
	}
	members := fmt.Sprintf("c0=127.0.0.1:%d,c1=127.0.0.1:%d,c2=127.0.0.1:%d", ports[3], ports[4],
		ports[5])
	for i := range 3 {
		name := fmt.Sprintf("c%d", i)
		s.ca.sign(s.environment, name, 10)
		url := fmt.Sprintf("https://127.0.0.1:%d/", ports[i])
		s.https = append(s.https, url)
		s.args = append(s.args, []string{
			"--dev", "--listen-https", fmt.Sprintf("127.0.0.1:%d", ports[i]), "--address-for-peers",
			url,
			"--ssl-cert-file", s.path(name + ".crt"), "--ssl-key-file", s.path(name + ".key"),
			"--ssl-cert-reload-period", "10ms",
			"--ssl-ca-file", s.path("root.crt"), "--public-key", string(public), "--data-dir",
			s.path(name + "_data"),
			"--server-id", name, "--members", members, "--raft-tls-cert", s.path(name + ".crt"),
			"--raft-tls-key", s.path(name + ".key"),
			"--raft-tls-ca", s.path("root.crt"),
		})
		s.cmds = append(s.cmds, nil)
		s.launch(i)
	}
	for i := range 3 {
		s.poll(20*time.Millisecond, "ready",
			func() bool { status, _ := s.get(i, "ready", ""); return status == 200 })
	}
	return s
}

func (s *secure) launch(i int) {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	log, err := os.OpenFile(s.path(s.own("storage_controller.log")), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(self, s.args[i]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, []string{asController + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = cmd.Process.Kill() })
	s.cmds[i] = cmd
}

func (s *secure) get(i int, path, token string) (int, string) {
	return s.send(i, http.MethodGet, path, token)
}

func (s *secure) send(i int, method, path, token string) (int, string) {
	req, err := http.NewRequest(method, s.https[i]+path,
		strings.NewReader(`{"new_tenant_id":"`+strings.Repeat("ab", 16)+`"}`))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// serial is that of the certificate that a controller shows to clients.
func (s *secure) serial(i int) int64 {
	c, err := tls.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(s.https[i], "https://"), "/"),
		s.client.Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// Three controllers with nothing but TLS: requests are forwarded over it, tokens
// count everywhere, and certificates are renewed without a restart.
func TestClusterOverTLS(t *testing.T) {
	s := startSecure(t)
	want := ""
	for i := range s.https {
		status, text := s.get(i, "control/v1/leader", s.token("admin"))
		if want == "" {
			want = text
		}
		if status != 200 || text != want || !strings.Contains(text, `"https://127.0.0.1:`) {
			t.Errorf("controller %d: %d %s, not %s", i, status, text, want)
		}
		// the leader alone knows it
		if status, text = s.get(i, "debug/v1/scheduler", s.token("admin")); status != 200 {
			t.Errorf("controller %d: %d %s", i, status, text)
		}
		for token, code := range map[string]int{
			"": 401, s.token("tenant"): 403, s.token("generations_api"): 403, "rubbish": 403,
		} {
			if status, text = s.send(i, "POST", "v1/tenant", token); status != code {
				t.Errorf("controller %d: with token %q %d %s", i, token, status, text)
			}
		}
	}
	for i := range s.https {
		s.ca.sign(s.environment, fmt.Sprintf("c%d", i), 20)
		s.poll(10*time.Millisecond, "renewed", func() bool { return s.serial(i) == 20 })
	}
	// A restart makes all connections between the controllers anew.
	for i, cmd := range s.cmds {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("controller %d: %v\n%s", i, err, s.log())
		}
		s.launch(i)
		s.poll(20*time.Millisecond, "ready again",
			func() bool { status, _ := s.get(i, "ready", ""); return status == 200 })
		s.poll(20*time.Millisecond, "forwarded", func() bool {
			status, _ := s.get(i,
				"debug/v1/scheduler", s.token("admin"))
			return status == 200
		})
	}
	for i, cmd := range s.cmds {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("controller %d: %v", i, err)
		}
	}
	s.checkLog()
}
