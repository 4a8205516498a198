package controlsocket

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"quorate/cluster"
)

func TestControlAnswerThatBreaksOffIsAnError(t *testing.T) {
	// A socket's path is short, which that of t.TempDir may not be.
	dir, err := os.MkdirTemp("", "quorate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	server := httptest.NewUnstartedServer(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Header().Set(infoHeader, "{}")
			_, _ = io.WriteString(w, "[]")
		}))
	_ = server.Listener.Close()
	server.Listener, err = net.Listen("unix", filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(server.Close)
	c := Dial(dir)
	if err := c.RemoveMember(t.Context(), "a"); err == nil {
		t.Error("half an answer says that the member is removed")
	}
	if _, err := c.Members(t.Context()); err == nil {
		t.Error("half a list is taken for the whole")
	}
	if _, err := c.Snapshot(t.Context(), cluster.SaveNewest, io.Discard); err == nil {
		t.Error("half a snapshot is taken for the whole")
	}
}
