package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/jsonhttp"
	"quorate/internal/pageserver"
)

// FeatureFlags is the PostHog project whose feature flags the leader gives to all
// pageservers. The zero value gives them nothing.
type FeatureFlags struct {
	URL, Project, Key string
	Every             time.Duration // 0: 30 s
}

const (
	flagsEvery   = 30 * time.Second
	flagsTimeout = 10 * time.Second
	flagsLimit   = 8 << 20 // bytes of a specification
	flagsAtOnce  = 8       // pageservers
)

// ParseFeatureFlags reads the JSON form of the configuration. All of its keys but
// the interval are required, as the existing controller requires them.
func ParseFeatureFlags(text string) (f FeatureFlags, err error) {
	var c struct {
		Project *string        `json:"project_id"`
		Key     *string        `json:"server_api_key"`
		Client  *string        `json:"client_api_key"`
		URL     *string        `json:"private_api_url"`
		Public  *string        `json:"public_api_url"`
		Every   *neon.Duration `json:"refresh_interval"`
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return f, err
	}
	for name, v := range map[string]*string{
		"project_id": c.Project, "server_api_key": c.Key, "client_api_key": c.Client,
		"private_api_url": c.URL, "public_api_url": c.Public,
	} {
		if v == nil {
			return f, fmt.Errorf("%s is required", name)
		}
	}
	f = FeatureFlags{URL: strings.TrimSuffix(*c.URL, "/"), Project: *c.Project, Key: *c.Key}
	if c.Every != nil {
		f.Every = time.Duration(*c.Every)
	}
	return f, nil
}

// address is where the specification is: keys that are meant for it alone have a
// path without the project.
func (f *FeatureFlags) address() string {
	if strings.HasPrefix(f.Key, "phs_") {
		return f.URL + "/api/feature_flag/local_evaluation"
	}
	return f.URL + "/api/projects/" + f.Project + "/feature_flags/local_evaluation"
}

// giveFlags fetches the specification now and then, and gives it to every
// pageserver that is there, until ctx ends.
func (a *App) giveFlags(ctx context.Context) {
	f := a.cfg.FeatureFlags
	if f.URL == "" {
		return
	}
	if f.Every <= 0 {
		f.Every = flagsEvery
	}
	tick := time.NewTicker(f.Every)
	defer tick.Stop()
	for {
		spec, err := a.fetchFlags(ctx, &f)
		switch {
		case err == nil:
			a.spreadFlags(ctx, spec)
		case ctx.Err() == nil:
			a.log.Warn("Failed to refresh feature flags", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *App) fetchFlags(ctx context.Context, f *FeatureFlags) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, flagsTimeout)
	defer cancel()
	via := &http.Client{Transport: a.flagSource, CheckRedirect: jsonhttp.StayHere}
	spec, err := jsonhttp.Do(ctx, via, jsonhttp.Request{
		Method: http.MethodGet, URL: f.address(), Token: f.Key, Limit: flagsLimit,
	})
	if err == nil && !spec.OK() {
		err = fmt.Errorf("failed to get feature flags: %d %s, %.200s", spec.Status,
			http.StatusText(spec.Status), spec.Body)
	}
	return string(spec.Body), err
}

// spreadFlags gives the specification to some pageservers at a time. One that does
// not answer gets the next; one that does not know the call needs none.
func (a *App) spreadFlags(ctx context.Context, spec string) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, flagsAtOnce)
	for n := range a.replica.State().Nodes() {
		if n.Availability == neon.NodeOffline {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			a.giveFlagsTo(ctx, n, spec)
		})
	}
}

func (a *App) giveFlagsTo(ctx context.Context, n *fsm.Node, spec string) {
	err := a.calls.client.UpdateFeatureFlags(ctx, addressOf(n), spec)
	switch {
	case err == nil:
		a.log.Info("Updated the feature flags of a pageserver", "node", n.ID)
	case ctx.Err() == nil && !pageserver.IsStatus(err, http.StatusNotFound):
		a.log.Warn("Failed to update feature flag spec", "node", n.ID, "err", err)
	}
}
