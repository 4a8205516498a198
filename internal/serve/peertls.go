package serve

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"
)

// PeerFiles are the files of the mutual authentication between replicas.
type PeerFiles struct {
	Cert, Key string        // of this replica
	CA        string        // the roots that sign the certificates of all replicas
	Reload    time.Duration // how often the files are checked for changes
	// Certificates, if not nil, is told of these.
	Certificates *Certificates
}

// PeerTLS reads the files. New connections use renewed certificates and roots without a
// restart. It verifies that the other end has a certificate of the roots; whom the
// certificate names is for the caller to compare, since addresses may change.
func PeerTLS(f PeerFiles, log *slog.Logger) (*tls.Config, error) {
	certs, err := openCertificate(f.Cert, f.Key, f.Reload, log)
	if err != nil {
		return nil, err
	}
	roots, err := openRoots(f.CA, f.Reload, log)
	if err != nil {
		return nil, err
	}
	f.Certificates.add(&watched{name: "peers", file: certs})
	f.Certificates.add(&watched{name: "peer_roots", file: roots})
	server := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return certs.current(), nil
			},
			ClientCAs:  roots.current(),
			ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
			// A resumed session would not show a certificate.
			SessionTicketsDisabled: true,
		}, nil
	}
	return &tls.Config{
		GetConfigForClient: server,
		ClientAuth:         tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return certs.current(), nil
		},
		// The library can take renewed roots only on one side, and would compare the host.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyServer(s.PeerCertificates, roots.current())
		},
	}, nil
}

var errNoCertificate = errors.New("the peer shows no certificate")

// verifyServer verifies the chain of a server that was dialed.
func verifyServer(chain []*x509.Certificate, roots *x509.CertPool) error {
	if len(chain) == 0 {
		return errNoCertificate
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}
