package bench

import (
	"errors"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
)

// TestAClusterThatExistsIsOnlyRead: its results are marked, and an empty one is an error.
func TestAClusterThatExistsIsOnlyRead(t *testing.T) {
	c, err := testcluster.Builder{}.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	o := RemoteOptions{
		Addresses: []string{c.URL(0)}, Clients: 2, Lasting: 20 * time.Millisecond,
	}
	if _, err := Remote(t.Context(), o); !errors.Is(err, errEmpty) {
		t.Errorf("an empty cluster: %v", err)
	}
	if _, err := create(t.Context(), c, creation{
		tenants: 2, shards: 1, clients: 1, policy: neon.Attached(0),
	}); err != nil {
		t.Fatal(err)
	}
	run, err := Remote(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !run.RemoteCluster || len(run.Suites) != 1 || len(run.Suites[0].Data) != 5 ||
		run.Missed() > 0 {
		t.Errorf("found %+v", run)
	}
}
