package resultsdb

import (
	"os"
	"sync"
	"testing"

	"quorate/testcluster/realpostgres"
)

func TestMain(m *testing.M) {
	os.Exit(realpostgres.Main(func() int {
		code := m.Run()
		if server.running != nil {
			server.running.Stop()
		}
		return code
	}))
}

// server is the Postgres of all tests of this package. Each has a database of its own there.
var server struct {
	once    sync.Once
	running *realpostgres.Server
	err     error
}

// startPostgres returns the URL of an empty database.
func startPostgres(t *testing.T) string {
	if os.Getenv(realpostgres.Wanted) == "" {
		t.Skipf("NOT TESTED WITH POSTGRES: %s is not set, `make e2e` sets it", realpostgres.Wanted)
	}
	server.once.Do(func() { server.running, server.err = realpostgres.Start() })
	if server.err != nil {
		t.Fatal(server.err)
	}
	url, err := server.running.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return url
}
