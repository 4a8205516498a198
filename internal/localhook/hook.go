package localhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"quorate/api/neon"
	"quorate/internal/jsonhttp"
)

const (
	// configureTimeout bounds the configuration of one compute, which restarts or
	// reloads its Postgres.
	configureTimeout = 120 * time.Second

	// connectTimeout is how long a compute may take to accept a connection and
	// still count as running.
	connectTimeout = 300 * time.Millisecond

	// longestRefusal bounds what an error repeats of an answer.
	longestRefusal = 64 << 10
)

// selfReconfiguring is what a compute says that is finding out by itself where
// its tenant is.
const selfReconfiguring = "refresh-configuration-pending"

// Options are the settings of a Hook.
type Options struct {
	Dir string // of the environment; empty: there is none, and no compute is told

	// Dial opens the connections; nil means TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Logger *slog.Logger
}

// Hook tells the computes of one environment. It is safe for concurrent use;
// notifications are delivered one at a time.
type Hook struct {
	opts Options
	http *http.Client
	turn chan struct{}
}

// New makes a Hook.
func New(opts Options) *Hook {
	if opts.Dial == nil {
		opts.Dial = new(net.Dialer).DialContext
	}
	return &Hook{
		opts: opts, turn: make(chan struct{}, 1),
		// Notifications are rare and computes come and go: no connection is kept.
		http: &http.Client{
			Transport: &http.Transport{DialContext: opts.Dial, DisableKeepAlives: true},
		},
	}
}

// NotifyAttach tells the running computes of a tenant where its shards are. It is
// an error when one of them refused.
func (h *Hook) NotifyAttach(ctx context.Context, n *neon.NotifyAttach) error {
	return h.deliver(ctx, func(env *environment, e *endpoint) (func(object) error, error) {
		if e.conf.Tenant != n.Tenant {
			return nil, nil
		}
		info, err := env.connection(n, e)
		if err != nil {
			return nil, err
		}
		return func(spec object) error {
			return errors.Join(spec.set("pageserver_connection_info", info),
				spec.set("shard_stripe_size", n.StripeSize))
		}, nil
	})
}

// NotifySafekeepers tells the running computes of a timeline its safekeepers.
func (h *Hook) NotifySafekeepers(ctx context.Context, n neon.NotifySafekeepers) error {
	return h.deliver(ctx, func(env *environment, e *endpoint) (func(object) error, error) {
		if e.conf.Tenant != n.Tenant || e.conf.Timeline != n.Timeline {
			return nil, nil
		}
		list, err := env.connstrings(n.Safekeepers, e)
		if err != nil {
			return nil, err
		}
		return func(spec object) error {
			return errors.Join(spec.set("safekeeper_connstrings", list),
				spec.set("safekeepers_generation", uint32(n.Generation)))
		}, nil
	})
}

// deliver configures the running computes for which plan has a change.
func (h *Hook) deliver(
	ctx context.Context, plan func(*environment, *endpoint) (func(object) error, error),
) error {
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if h.opts.Dir == "" {
		h.opts.Logger.Warn(
			"neon_local_repo_dir not set, likely a bug in neon_local; skipping compute update")
		return nil
	}
	env, err := loadEnvironment(h.opts.Dir)
	if err != nil {
		h.opts.Logger.Warn("Couldn't load neon_local config, skipping compute update", "err", err)
		return nil
	}
	all, err := env.endpoints()
	for i := range all {
		if err != nil {
			break
		}
		e := &all[i]
		change, perr := plan(env, e)
		if perr == nil && change == nil || !h.runs(ctx, e) {
			continue
		}
		if err = perr; err == nil {
			h.opts.Logger.Info("Reconfiguring endpoint", "endpoint", e.id)
			err = h.configure(ctx, env, e, change)
		}
	}
	return h.outcome(ctx, err)
}

// outcome decides what an error means for the notification.
func (h *Hook) outcome(ctx context.Context, err error) error {
	var refusal *refusalError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx) // a compute may have looked as if it did not run
	case err == nil:
		return nil
	case errors.As(err, &refusal) && strings.Contains(refusal.text, selfReconfiguring):
		h.opts.Logger.Info("The compute reconfigures itself", "err", err)
		return nil
	}
	// The first word is what test runners of neon_local look for before they let
	// such a line pass.
	h.opts.Logger.Error("reconciler: neon_local notification hook failed: " + err.Error())
	return fmt.Errorf("neon_local notification hook failed: %w", err)
}

// runs reports whether the Postgres of a compute is up.
func (h *Hook) runs(ctx context.Context, e *endpoint) bool {
	if _, err := os.Stat(filepath.Join(e.dir, "pgdata", "postmaster.pid")); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := h.opts.Dial(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(int(e.conf.PgPort)))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// refusalError is a compute that answered, but not with a success.
type refusalError struct {
	status int
	text   string
}

func (e *refusalError) Error() string { return "Error: " + strconv.Itoa(e.status) + " " + e.text }

// configure sends a compute its specification with a change in it.
func (h *Hook) configure(
	ctx context.Context, env *environment, e *endpoint, change func(object) error,
) error {
	body, err := e.request(change)
	if err != nil {
		return fmt.Errorf("endpoint %s: %w", e.id, err)
	}
	token, err := env.token(e.id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	url := "http://0.0.0.0:" + strconv.Itoa(int(e.conf.HTTPPort)) + "/configure"
	a, err := jsonhttp.Do(ctx, h.http, jsonhttp.Request{
		Method: http.MethodPost, URL: url, Token: token, Body: json.RawMessage(body),
	})
	if a.Status >= http.StatusBadRequest {
		text := strings.TrimSpace(string(a.Body[:min(len(a.Body), longestRefusal)]))
		err = &refusalError{a.Status, text}
	}
	if err != nil {
		return fmt.Errorf("endpoint %s: %w", e.id, err)
	}
	return nil
}

// token admits to one compute.
func (env *environment) token(endpoint string) (string, error) {
	text, err := os.ReadFile(env.keyFile)
	if err != nil {
		return "", err
	}
	key, err := jwt.ParseEdPrivateKeyFromPEM(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", env.keyFile, err)
	}
	return jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"compute_id": endpoint, "scope": nil, "aud": nil,
	}).SignedString(key)
}
