package storagecontroller

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"strings"
	"testing"
	"time"

	"quorate/cluster"
)

// A program that reaches a plain address for replicas has the cluster, so it must be asked for.
func TestThePeersDoorIsLocked(t *testing.T) {
	key, secure := make([]byte, 16), &tls.Config{}
	for _, c := range []struct {
		cfg  cluster.Config
		need string // what the refusal names; empty: none
	}{
		{cluster.Config{RaftListen: "127.0.0.1:0"}, ""},
		{cluster.Config{RaftListen: "[::1]:0"}, ""},
		{cluster.Config{RaftListen: "localhost:1"}, ""},
		{cluster.Config{RaftListen: "127.0.0.1:1", GossipListen: "127.0.0.1:2"}, ""},
		{cluster.Config{RaftListen: "10.0.0.1:1"}, "--raft-tls-cert"},
		{cluster.Config{RaftListen: ":1"}, "--raft-tls-cert"},
		{cluster.Config{RaftListen: "0.0.0.0:1"}, "--raft-tls-cert"},
		{cluster.Config{RaftListen: "c1.example:1"}, "--raft-tls-cert"},
		{cluster.Config{RaftListen: ":1", GossipListen: ":2", GossipKey: key}, "--raft-tls-cert"},
		{cluster.Config{RaftListen: ":1", TLS: secure}, ""},
		{cluster.Config{RaftListen: ":1", TLS: secure, GossipListen: ":2"}, "--gossip-key"},
		{cluster.Config{RaftListen: ":1", TLS: secure, GossipListen: ":2", GossipKey: key}, ""},
	} {
		var log bytes.Buffer
		lines := slog.New(slog.NewTextHandler(&log, nil))
		err := mustParse(t, "--listen=127.0.0.1:1").checkPeersDoor(c.cfg, lines)
		if (err == nil) != (c.need == "") || err != nil &&
			(!strings.Contains(err.Error(), c.need) ||
				!strings.Contains(err.Error(), "--insecure-peers")) || log.Len() > 0 {
			t.Errorf("%+v: %v %s", c.cfg, err, &log)
		}
		err = mustParse(t, "--listen=127.0.0.1:1", "--insecure-peers").checkPeersDoor(c.cfg, lines)
		if err != nil || strings.Contains(log.String(), "WARN") != (c.need != "") {
			t.Errorf("%+v with --insecure-peers: %v %s", c.cfg, err, &log)
		}
	}
}

// Without --dev the door is looked at before anything is opened.
func TestAStartWithAnOpenDoorIsRefused(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	args := []string{
		"--listen=127.0.0.1:0", "--jwt-token=a", "--control-plane-jwt-token=b",
		"--safekeeper-jwt-token=c", "--control-plane-url=http://x", "--public-key=" + string(key),
		"--data-dir=" + t.TempDir(), "--raft-listen=0.0.0.0:0",
	}
	err = runReplica(ctx, mustParse(t, args...), Seams{})
	if err == nil || !strings.Contains(err.Error(), "--insecure-peers") {
		t.Errorf("started: %v", err)
	}
}
