package app

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"quorate/api/neon"
	"quorate/internal/computehook"
	"quorate/internal/localhook"
	"quorate/internal/serve"
	"quorate/reconciler/outbox"
)

// hooksOf are the hooks of a configuration with real sockets.
func hooksOf(t *testing.T, cfg Config) hooks {
	t.Helper()
	cfg.Network, cfg.Logger = serve.TCP{}, slog.New(slog.DiscardHandler)
	out, err := newOutgoing(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.closeIdle)
	return newHooks(&cfg, out)
}

func TestHooksFollowTheConfiguration(t *testing.T) {
	if h := hooksOf(t, Config{}); h != (hooks{}) {
		t.Errorf("nobody is to be told, but there are %+v", h)
	}
	h := hooksOf(t, Config{ControlPlaneURL: "http://127.0.0.1:1"})
	_, attach := h.attach.(hook)
	_, keepers := h.safekeepers.(hook)
	_, imports := h.imports.(hook)
	if !attach || !keepers || !imports {
		t.Errorf("with a control plane: %T, %T and %T", h.attach, h.safekeepers, h.imports)
	}
	// neon_local starts a control plane for imports beside the computes that it has.
	h = hooksOf(t, Config{ControlPlaneURL: "http://127.0.0.1:1", LocalComputes: true})
	_, attach = h.attach.(*localhook.Hook)
	_, keepers = h.safekeepers.(*localhook.Hook)
	_, imports = h.imports.(hook)
	if !attach || !keepers || !imports {
		t.Errorf("with local computes: %T, %T and %T", h.attach, h.safekeepers, h.imports)
	}
}

// TestControlPlaneSaysWhenToComeBack: the outbox waits, gives up or tries again as the
// answer says.
func TestControlPlaneSaysWhenToComeBack(t *testing.T) {
	var status atomic.Int32
	var asked atomic.Pointer[string]
	plane := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked.Store(new(r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization")))
		w.WriteHeader(int(status.Load()))
	}))
	defer plane.Close()
	h := hooksOf(t, Config{
		ControlPlaneURL: plane.URL + "/hooks/", Tokens: Tokens{ControlPlane: func() string { return "secret" }},
	})
	for _, c := range []struct {
		status  int32
		failed  bool
		refused bool
		want    outbox.Refusal
	}{
		{status: http.StatusOK},
		{status: http.StatusServiceUnavailable, failed: true},
		{status: http.StatusForbidden, failed: true, refused: true,
			want: outbox.Refusal{Never: true}},
		{status: http.StatusTooManyRequests, failed: true, refused: true,
			want: outbox.Refusal{Wait: computehook.SlowDownDelay}},
		{status: http.StatusLocked, failed: true, refused: true},
	} {
		status.Store(c.status)
		err := h.attach.NotifyAttach(t.Context(), &neon.NotifyAttach{Tenant: neon.TenantID{1}})
		if (err != nil) != c.failed {
			t.Errorf("%d: %v", c.status, err)
		}
		var r *outbox.Refusal
		if errors.As(err, &r) != c.refused || r != nil &&
			(r.Never != c.want.Never || r.Wait != c.want.Wait || r.Err == nil) {
			t.Errorf("%d is taken as %+v", c.status, r)
		}
		if got, want := *asked.Load(), "PUT /hooks/notify-attach Bearer secret"; got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
	}
	status.Store(http.StatusForbidden)
	if err := h.imports.ImportComplete(t.Context(), neon.ImportComplete{}); err == nil {
		t.Error("a refused report of an import is a success")
	}
	if err := h.safekeepers.NotifySafekeepers(t.Context(), neon.NotifySafekeepers{}); err == nil {
		t.Error("refused safekeepers are a success")
	}
	status.Store(http.StatusOK)
	if err := errors.Join(h.imports.ImportComplete(t.Context(), neon.ImportComplete{}),
		h.safekeepers.NotifySafekeepers(t.Context(), neon.NotifySafekeepers{})); err != nil {
		t.Error(err)
	}
}
