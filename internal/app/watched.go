package app

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"quorate/internal/servicemanager"
)

// Supervision is what the service manager of this process is told, and what it asks for.
type Supervision struct {
	Manager *servicemanager.Manager // nil: there is none
	Reloads <-chan os.Signal        // asks that the certificates are read again
}

// run tells the service manager that this replica serves, and how it is, until the
// returned function is called.
func (s Supervision) run(ctx context.Context, a *App) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	s.Manager.Ready()
	wg.Go(func() {
		s.Manager.Watch(ctx, servicemanager.Watched{Check: a.checkProgress, Status: a.status})
	})
	wg.Go(func() {
		for {
			select {
			case <-s.Reloads:
				s.Manager.Reload(a.cfg.Certificates.Reload)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// checkProgress returns an error if this process stands still, so that only another one
// helps: the Raft member, or the API, which takes the locks that every request does. It
// is not about this replica's being ready.
func (a *App) checkProgress(limit time.Duration) error {
	if err := a.cluster.CheckProgress(limit); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.cfg.HTTP.Address+"healthz", nil)
	if err != nil {
		return err
	}
	r.RemoteAddr = "127.0.0.1:0"
	var answer statusOnly
	a.api.ServeHTTP(&answer, r)
	if answer != http.StatusOK && answer != http.StatusServiceUnavailable {
		return fmt.Errorf("the API answers %d to itself", answer)
	}
	return nil
}

// status says in one line what this replica does.
func (a *App) status() string {
	role := "follower"
	if a.cluster.IsLeader() {
		role = "leader"
	}
	why := a.readiness.OutOfService()
	if why == "" && !a.readiness.Ready() {
		why = "not ready yet"
	}
	if why != "" {
		role += ": "
	}
	return role + why
}

// statusOnly is a response of which only the status is kept.
type statusOnly int

func (s *statusOnly) Header() http.Header { return http.Header{} }

func (s *statusOnly) WriteHeader(code int) { *s = statusOnly(cmp.Or(int(*s), code)) }

func (s *statusOnly) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return len(p), nil
}
