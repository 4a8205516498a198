// Package featureflags gives the feature flags of a PostHog project to all pageservers.
//
// It does not read the flags: it passes them on as they are.
package featureflags

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/jsonhttp"
	"quorate/internal/pageserver"
)

// Project is the PostHog project whose feature flags are given to pageservers. The zero
// value gives them nothing.
type Project struct {
	URL, ID, Key string
	Every        time.Duration // 0: 30 s
}

const (
	defaultEvery = 30 * time.Second
	fetchTimeout = 10 * time.Second
	maxSpec      = 8 << 20 // bytes
	atOnce       = 8       // pageservers that are told at the same time
)

// Parse reads the JSON form of the configuration. All of its keys but the interval are
// required, as the existing controller requires them.
func Parse(text string) (p Project, err error) {
	var c struct {
		Project *string        `json:"project_id"`
		Key     *string        `json:"server_api_key"`
		Client  *string        `json:"client_api_key"`
		URL     *string        `json:"private_api_url"`
		Public  *string        `json:"public_api_url"`
		Every   *neon.Duration `json:"refresh_interval"`
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return p, err
	}
	for name, v := range map[string]*string{
		"project_id": c.Project, "server_api_key": c.Key, "client_api_key": c.Client,
		"private_api_url": c.URL, "public_api_url": c.Public,
	} {
		if v == nil {
			return p, fmt.Errorf("%s is required", name)
		}
	}
	p = Project{URL: strings.TrimSuffix(*c.URL, "/"), ID: *c.Project, Key: *c.Key}
	if c.Every != nil {
		p.Every = time.Duration(*c.Every)
	}
	return p, nil
}

// address is where the specification is. Keys that are meant for it alone have a path
// without the project.
func (p *Project) address() string {
	if strings.HasPrefix(p.Key, "phs_") {
		return p.URL + "/api/feature_flag/local_evaluation"
	}
	return p.URL + "/api/projects/" + p.ID + "/feature_flags/local_evaluation"
}

// Pageservers takes the specification to a pageserver.
type Pageservers interface {
	UpdateFeatureFlags(ctx context.Context, n *fsm.Node, spec string) error
}

// Poller fetches the specification again and again.
type Poller struct {
	Project     Project
	Source      http.RoundTripper // the way to the project
	State       func() *fsm.State
	Pageservers Pageservers
	Logger      *slog.Logger
}

// Run fetches the specification at once and then regularly, and gives it to every
// pageserver that is not offline, until ctx ends.
func (p *Poller) Run(ctx context.Context) {
	if p.Project.URL == "" {
		return
	}
	every := p.Project.Every
	if every <= 0 {
		every = defaultEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		spec, err := p.fetch(ctx)
		switch {
		case err == nil:
			p.distribute(ctx, spec)
		case ctx.Err() == nil:
			p.Logger.Warn("Failed to refresh feature flags", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *Poller) fetch(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	via := &http.Client{Transport: p.Source, CheckRedirect: jsonhttp.StayHere}
	spec, err := jsonhttp.Do(ctx, via, jsonhttp.Request{
		Method: http.MethodGet, URL: p.Project.address(), Token: p.Project.Key, Limit: maxSpec,
	})
	if err == nil && !spec.OK() {
		err = fmt.Errorf("failed to get feature flags: %d %s, %.200s", spec.Status,
			http.StatusText(spec.Status), spec.Body)
	}
	return string(spec.Body), err
}

// distribute gives the specification to a few pageservers at a time. One that does not
// answer gets the next specification. One that does not know the call needs none.
func (p *Poller) distribute(ctx context.Context, spec string) {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for n := range p.State().Nodes() {
		if n.Availability == neon.NodeOffline {
			continue
		}
		g.Go(func() error {
			p.give(ctx, n, spec)
			return nil
		})
	}
	_ = g.Wait()
}

func (p *Poller) give(ctx context.Context, n *fsm.Node, spec string) {
	err := p.Pageservers.UpdateFeatureFlags(ctx, n, spec)
	switch {
	case err == nil:
		p.Logger.Info("Updated the feature flags of a pageserver", "node", n.ID)
	case ctx.Err() == nil && !pageserver.IsStatus(err, http.StatusNotFound):
		p.Logger.Warn("Failed to update feature flag spec", "node", n.ID, "err", err)
	}
}
