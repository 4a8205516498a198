package storagecontroller

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"time"

	"quorate/cluster"
	"quorate/internal/serve"
)

// tls is the mutual authentication between replicas; nil without files.
func (r *raftFlags) tls(
	certificates *serve.Certificates, reload time.Duration, log *slog.Logger,
) (*tls.Config, error) {
	if r.certFile == "" && r.keyFile == "" && r.caFile == "" {
		return nil, nil
	}
	if r.certFile == "" || r.keyFile == "" || r.caFile == "" {
		return nil, fmt.Errorf("%w: --raft-tls-cert, --raft-tls-key and --raft-tls-ca go together",
			errUsage)
	}
	return serve.PeerTLS(serve.PeerFiles{
		Cert: r.certFile, Key: r.keyFile, CA: r.caFile, Reload: reload, Certificates: certificates,
	}, log)
}

// checkPeersDoor refuses addresses at which others than the replicas could pass for one.
// Any program that reaches a plain Raft address can read and change everything.
func (f *flags) checkPeersDoor(c cluster.Config, log *slog.Logger) error {
	open, need := "", ""
	switch {
	case c.TLS == nil && !loopback(c.RaftListen):
		open = "Raft at " + c.RaftListen
		need = "--raft-tls-cert, --raft-tls-key and --raft-tls-ca"
	case c.GossipListen != "" && len(c.GossipKey) == 0 && !loopback(c.GossipListen):
		open = "gossip at " + c.GossipListen
		need = "--gossip-key"
	default:
		return nil
	}
	if f.raft.insecure {
		log.Warn("Whoever reaches the addresses for replicas has the cluster (--insecure-peers)",
			"plain", open, "way_out", "give "+need)
		return nil
	}
	return fmt.Errorf("%s would take anybody for a replica: give %s, or an address of the loopback "+
		"interface, or say --insecure-peers if only replicas can reach it (docs/security.md)",
		open, need)
}

// loopback reports whether only processes of this machine reach an address. A name other
// than localhost may be any machine's.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
