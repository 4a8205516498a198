package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/cluster/clustertest"
	"quorate/internal/instance"
	"quorate/internal/serve"
)

// noting is a network that tells the address of the first listener.
type noting struct {
	serve.TCP
	first chan string
}

func (n noting) Listen(addr string) (net.Listener, error) {
	l, err := n.TCP.Listen(addr)
	if err == nil {
		select {
		case n.first <- l.Addr().String():
		default:
		}
	}
	return l, err
}

// sharing runs an instance at a directory until stop is called, and tells its URL.
func sharing(t *testing.T, dir string, entry instance.Entry) (url string, stop func()) {
	t.Helper()
	network := noting{first: make(chan string, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- RunShared(ctx, Config{
			Cluster: cluster.Config{
				DataDir: dir, RaftListen: "127.0.0.1:0", Disk: clustertest.NewFileDisk(),
			},
			HTTP:    HTTP{Config: serve.Config{Listen: "127.0.0.1:0"}},
			Network: network, Control: ControlNone,
		}, entry)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the instance ends with %v", err)
		}
	}
	t.Cleanup(stop)
	select {
	case address := <-network.first:
		return "http://" + address + "/", stop
	case err := <-done:
		t.Fatal(err)
		return "", nil
	}
}

// add registers a node through an instance.
func add(t *testing.T, url string, id neon.NodeID) {
	t.Helper()
	resp, err := http.Post(url+"control/v1/node", "application/json", strings.NewReader(fmt.Sprintf(
		`{"node_id":%d,"listen_pg_addr":"127.0.0.1","listen_pg_port":1,"listen_http_addr":"127.0.0.1","listen_http_port":%d,"availability_zone_id":"a"}`,
		id, id)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatalf("registering node %d at %s: %s %s", id, url, resp.Status, text)
	}
}

// TestInstancesTakeTurnsAtOneState: a candidate takes over what the first instance has,
// which forwards to it and goes on with what it has written.
func TestInstancesTakeTurnsAtOneState(t *testing.T) {
	dir := t.TempDir()
	first, stopFirst := sharing(t, dir, instance.EnterWhenFree)
	await(t, "first instance", func() bool { return get(first+"ready") == http.StatusOK })
	add(t, first, 1)

	second, stopSecond := sharing(t, dir, instance.EnterAsCandidate)
	await(t, "candidate that leads", func() bool { return get(second+"ready") == http.StatusOK })
	client := &http.Client{Transport: transportOf(serve.TCP{}.Dial)}
	defer client.CloseIdleConnections()
	add(t, first, 2) // is forwarded
	for _, url := range []string{first, second} {
		_, nodes := fetch(t, client, url+"control/v1/node")
		if !strings.Contains(nodes, `"id":1,`) || !strings.Contains(nodes, `"id":2,`) {
			t.Errorf("%s knows of %s", url, nodes)
		}
	}
	stopSecond()
	await(t, "first instance that is back", func() bool {
		status, nodes := fetch(t, client, first+"control/v1/node")
		return status == http.StatusOK && strings.Contains(nodes, `"id":2,`)
	})
	add(t, first, 3)
	stopFirst()
}
