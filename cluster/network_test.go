package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/clustertest"
)

// authority signs the certificates of one cluster.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true,
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

// of is the configuration of a server whose certificate has these names.
func (a *authority) of(dns ...string) *tls.Config {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: dns,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: a.key}},
		RootCAs:      pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

// startTLS starts three servers a, b and c with certificates that name them.
func startTLS(t *testing.T, ca *authority) *trio {
	t.Helper()
	tr := &trio{t: t}
	var members []Member
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, Member{ID: string(rune('a' + i)), RaftAddr: l.Addr().String()})
		_ = l.Close()
	}
	for i, m := range members {
		tr.nodes = append(tr.nodes,
			&node{cfg: Config{
				ID: m.ID, RaftListen: m.RaftAddr, Members: members, TLS: ca.of(m.ID),
				HTTPAddr: "http://" + m.ID, Disk: clustertest.NewMemoryDisk(),
			}})
		tr.start(i)
	}
	t.Cleanup(tr.close)
	return tr
}

func TestServersTalkOverMutualTLS(t *testing.T) {
	tr := startTLS(t, newAuthority(t))
	lead := tr.leader()
	lead.mustPropose(t, "secret")
	for _, nd := range tr.nodes {
		if err := nd.ReadBarrier(context.Background()); err != nil ||
			nd.machine.count("secret") != 1 {
			t.Fatalf("%s: %v", nd.ID(), err)
		}
	}
	plain := strangersStreams(greeting{ID: "x"}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, _, err := plain.dial(ctx, lead.cfg.RaftListen, tagPeer); err == nil {
		t.Fatal("a plain connection was welcome")
	}
}

func TestStaticMembersBootstrapOnceHoweverTheyStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := clustertest.NewNetwork()
		tr := &trio{t: t, net: net}
		for i := range 3 {
			nd := &node{cfg: memoryConfig(net, 3, i), disk: clustertest.NewMemoryDisk()}
			nd.cfg.Disk = nd.disk
			tr.nodes = append(tr.nodes, nd)
		}
		defer tr.close()
		var wg sync.WaitGroup
		for i := range tr.nodes {
			wg.Go(func() { tr.start(i) })
		}
		wg.Wait()
		tr.leader().mustPropose(t, "a")
		for round := range 3 { // everything stops and starts, one of them late
			for i := range tr.nodes {
				_ = tr.nodes[i].kill()
			}
			tr.start(round)
			time.Sleep(300 * time.Millisecond)
			tr.start((round + 1) % 3)
			tr.leader()
			tr.start((round + 2) % 3)
			for _, nd := range tr.nodes {
				if err := nd.ReadBarrier(context.Background()); err != nil ||
					nd.machine.count("a") != 1 {
					t.Fatalf("%s lost the cluster it was in: %v", nd.ID(), err)
				}
				if len(nd.Members()) != 3 {
					t.Fatalf("%s sees %d members", nd.ID(), len(nd.Members()))
				}
			}
		}
	})
}

func TestAServerOutsideItsOwnMemberListIsRefused(t *testing.T) {
	cfg := memoryConfig(clustertest.NewNetwork(), 3, 0)
	cfg.ID, cfg.Disk = "n7", clustertest.NewMemoryDisk()
	if err := openDirErr(t, cfg); !errors.Is(err, ErrUnknownMember) {
		t.Fatalf("got %v", err)
	}
}

func TestHungRealDiskGivesWay(t *testing.T) {
	tr := startTCP(t, 3, quick)
	tr.leader()
	for i := range tr.nodes {
		_ = tr.nodes[i].kill()
		tr.nodes[i].disk = clustertest.NewFileDisk()
		tr.nodes[i].cfg.Disk = tr.nodes[i].disk
		tr.nodes[i].cfg.Timeouts.Store = 500 * time.Millisecond
		tr.start(i)
	}
	old := tr.leader()
	c := old.Cluster
	old.disk.Hang()
	t.Cleanup(old.disk.Resume)
	began := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = c.Propose(context.Background(), []byte("hangs")) })
	eventually(t, "a write elsewhere", func() bool {
		for _, nd := range tr.nodes {
			if nd != old {
				if _, err := nd.Propose(context.Background(), []byte("x")); err == nil {
					return true
				}
			}
		}
		return false
	})
	t.Logf("a write elsewhere after %v", time.Since(began))
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	old.disk.Resume()
	wg.Wait()
	eventually(t, "the sick server catches up", func() bool { return old.machine.count("x") > 0 })
}
