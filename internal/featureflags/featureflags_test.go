package featureflags

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

func TestEveryKeyButTheIntervalIsRequired(t *testing.T) {
	keys := []string{
		"project_id", "server_api_key", "client_api_key", "private_api_url", "public_api_url",
	}
	text := func(keys []string) string {
		return `{"` + strings.Join(keys, `":"v","`) + `":"v"}`
	}
	p, err := Parse(text(keys))
	if want := (Project{URL: "v", ID: "v", Key: "v"}); err != nil || p != want {
		t.Errorf("read as %+v, %v", p, err)
	}
	for i := range keys {
		if _, err := Parse(text(slices.Delete(slices.Clone(keys), i, i+1))); err == nil {
			t.Errorf("taken without %s", keys[i])
		}
	}
	every := strings.TrimSuffix(text(keys), "}") + `,"refresh_interval":"2s"}`
	if p, err := Parse(every); err != nil || p.Every != 2*time.Second {
		t.Errorf("read as %+v, %v", p, err)
	}
	if _, err := Parse("{"); err == nil {
		t.Error("half of an object is taken")
	}
}

func TestAKeyOfTheSpecificationNeedsNoProject(t *testing.T) {
	p := Project{URL: "http://h", ID: "7", Key: "phx_1"}
	if got := p.address(); got != "http://h/api/projects/7/feature_flags/local_evaluation" {
		t.Errorf("at %s", got)
	}
	p.Key = "phs_1"
	if got := p.address(); got != "http://h/api/feature_flag/local_evaluation" {
		t.Errorf("at %s", got)
	}
}

// poller makes a Poller whose source answers with h.
func poller(t *testing.T, h http.HandlerFunc) *Poller {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return &Poller{
		Project: Project{URL: server.URL, Key: "key", Every: time.Millisecond},
		Source:  http.DefaultTransport, Logger: slog.New(slog.DiscardHandler),
	}
}

// Half of a specification is not given to pageservers.
func TestFeatureFlagsThatAreNotWholeAreAnError(t *testing.T) {
	size := 0
	p := poller(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", size))
	})
	for _, c := range []struct {
		size int
		ok   bool
	}{{maxSpec, true}, {maxSpec + 1, false}} {
		size = c.size
		spec, err := p.fetch(t.Context())
		if (err == nil) != c.ok || c.ok && len(spec) != c.size {
			t.Errorf("%d bytes: got %d, %v", c.size, len(spec), err)
		}
	}
}

// told remembers which pageservers got which specification.
type told struct {
	mu   sync.Mutex
	got  map[neon.NodeID]string
	done context.CancelFunc
}

func (d *told) UpdateFeatureFlags(_ context.Context, n *fsm.Node, spec string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got[n.ID] = spec
	if len(d.got) == 2 {
		d.done()
	}
	return nil
}

func TestPageserversGetTheSpecificationAfterTheSourceHasFailed(t *testing.T) {
	asked := 0
	p := poller(t, func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked == 1 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	})
	state := fsm.NewStore().State()
	for id := range neon.NodeID(3) {
		var r fsm.Result
		state, r = fsm.Apply(state, uint64(id)*2+1, fsm.RequestID{}, fsm.RegisterNode{
			ID:   id + 1,
			Addr: fsm.NodeAddr{HTTPHost: "h", HTTPPort: 1, PGHost: "h", PGPort: 1},
			AZ:   neon.MakeAZ("a"),
		})
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		if id == 2 {
			break // stays offline
		}
		state, r = fsm.Apply(state, uint64(id)*2+2, fsm.RequestID{}, fsm.SetNodeAvailability{
			Verdicts: []fsm.Verdict{{Node: id + 1, To: neon.NodeActive}},
		})
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	p.State = func() *fsm.State { return state }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d := &told{got: make(map[neon.NodeID]string), done: cancel}
	p.Pageservers = d
	p.Run(ctx)
	if d.got[1] != "Bearer key" || d.got[2] != "Bearer key" || len(d.got) != 2 {
		t.Errorf("given: %v", d.got)
	}
}

func TestNothingIsGivenWithoutAProject(t *testing.T) {
	new(Poller).Run(t.Context()) // it returns at once
}
