package serve

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// PeerFiles are the files of the mutual authentication between replicas.
type PeerFiles struct {
	Cert, Key string        // of this replica
	CA        string        // the roots that sign the certificates of all replicas
	Reload    time.Duration // how often Cert and Key are checked for changes
}

// PeerTLS reads the files. New connections use a renewed certificate without a restart.
// Renewed roots need one.
func PeerTLS(f PeerFiles, log *slog.Logger) (*tls.Config, error) {
	certs, err := openCertificate(f.Cert, f.Key, f.Reload, log)
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	text, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("peer roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("peer roots: no certificate in %s", f.CA)
	}
	return &tls.Config{
		GetCertificate: certs.current,
		GetClientCertificate: func(
			*tls.CertificateRequestInfo,
		) (*tls.Certificate, error) {
			return certs.current(nil)
		},
		RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}, nil
}
