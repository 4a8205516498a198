package serve

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// openCertificate reads a certificate and its key.
func openCertificate(
	certFile, keyFile string, reload time.Duration, log *slog.Logger,
) (*reloaded[*tls.Certificate], error) {
	c := &reloaded[*tls.Certificate]{
		what: "TLS certificate", files: []string{certFile, keyFile}, reload: reload, log: log,
		read: func() (*tls.Certificate, validity, error) {
			cert, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				return nil, validity{}, err
			}
			return &cert, validityOf(cert.Leaf), nil
		},
	}
	return c, c.open()
}

// openRoots reads root certificates.
func openRoots(
	file string, reload time.Duration, log *slog.Logger,
) (*reloaded[*x509.CertPool], error) {
	r := &reloaded[*x509.CertPool]{
		what: "peer roots", files: []string{file}, reload: reload, log: log,
		read: func() (*x509.CertPool, validity, error) { return readRoots(file) },
	}
	return r, r.open()
}

// readRoots returns the roots in a file, and the time of the first to expire.
func readRoots(file string) (pool *x509.CertPool, first validity, err error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, first, err
	}
	pool = x509.NewCertPool()
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, first, fmt.Errorf("%s: %w", file, err)
		}
		pool.AddCert(cert)
		if first.to.IsZero() || cert.NotAfter.Before(first.to) {
			first = validityOf(cert)
		}
	}
	if first.to.IsZero() {
		return nil, first, fmt.Errorf("no certificate in %s", file)
	}
	return pool, first, nil
}
