package app

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quorate/cluster"
	"quorate/internal/serve"
	"quorate/internal/servicemanager"
)

// holding is a machine whose Apply can be held.
type holding struct {
	cluster.Machine
	cluster.Digester
	hold *sync.Mutex
}

func (h holding) Apply(batch []cluster.Entry) []any {
	h.hold.Lock()
	defer h.hold.Unlock()
	return h.Machine.Apply(batch)
}

// manager is a service manager that listens, and what it hears until a line comes.
func manager(t *testing.T, watchdogUsec string) (m *servicemanager.Manager, hears func(string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m, err = servicemanager.FromEnvironment(func(name string) string {
		return map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": watchdogUsec}[name]
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m, func(want string) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("%q is not told: %v", want, err)
			}
			if strings.Contains(string(buf[:n]), want) {
				return
			}
		}
	}
}

// TestTheServiceManagerHearsHowAReplicaIs goes through the life of a replica.
func TestTheServiceManagerHearsHowAReplicaIs(t *testing.T) {
	m, hears := manager(t, "300000")
	reloads := make(chan os.Signal)
	_, stop := running(t, Config{
		Supervision:  Supervision{Manager: m, Reloads: reloads},
		Certificates: serve.NewCertificates(time.Hour, nil),
	})
	hears("READY=1")
	hears("WATCHDOG=1")
	reloads <- syscall.SIGHUP
	hears("RELOADING=1")
	hears("READY=1")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	hears("STOPPING=1")
}

// TestAReplicaWhoseMachineHangsStandsStill, and one whose machine goes on does not.
func TestAReplicaWhoseMachineHangsStandsStill(t *testing.T) {
	var hold sync.Mutex
	a, _ := running(t, Config{Machine: func(m cluster.Machine) cluster.Machine {
		return holding{m, m.(cluster.Digester), &hold}
	}})
	const limit = time.Second
	for range 2 {
		if err := a.checkProgress(limit); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.status(); got != "leader" {
		t.Errorf("the status is %q", got)
	}
	hold.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = a.Replica().Propose(t.Context(), [16]byte{1}, registration(7))
	}()
	await(t, "a standstill", func() bool { return a.checkProgress(limit) != nil })
	hold.Unlock()
	<-done
	await(t, "progress", func() bool { return a.checkProgress(limit) == nil })
}
