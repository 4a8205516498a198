package app

import (
	"context"

	"quorate/api/neon"
	"quorate/internal/computehook"
	"quorate/internal/imports"
	"quorate/internal/localhook"
	"quorate/internal/membership"
	"quorate/reconciler/outbox"
)

// hooks are what is told of changes; nil where there is none.
type hooks struct {
	attach      outbox.Hook
	safekeepers membership.Hook
	imports     imports.Hook
}

func newHooks(cfg *Config, out *outgoing) (h hooks) {
	if cfg.ControlPlaneURL != "" {
		h.imports = controlPlane(cfg, out)
	}
	switch {
	case cfg.LocalComputes:
		local := localhook.New(localhook.Options{
			Dir: cfg.RepoDir, Dial: out.dial, Logger: cfg.Logger,
		})
		h.attach, h.safekeepers = local, local
	case cfg.ControlPlaneURL != "":
		remote := controlPlane(cfg, out)
		h.attach, h.safekeepers = remote, remote
	}
	return h
}

// controlPlane makes a client of the control plane.
func controlPlane(cfg *Config, out *outgoing) hook {
	return hook{computehook.New(computehook.Options{
		BaseURL: cfg.ControlPlaneURL, Token: cfg.Tokens.ControlPlane, Transport: out.pooled(),
	})}
}

// hook delivers a notification in one attempt.
type hook struct{ client *computehook.Client }

func (h hook) NotifyAttach(ctx context.Context, body *neon.NotifyAttach) error {
	o := h.client.NotifyAttach(ctx, *body)
	if o.Err != nil && o.Kind != computehook.Retryable {
		r := &outbox.Refusal{Err: o.Err, Never: o.Kind == computehook.Fatal}
		if o.Kind == computehook.SlowDown {
			r.Wait = computehook.SlowDownDelay
		}
		return r
	}
	return o.Err
}

// ImportComplete tells the control plane in one attempt.
func (h hook) ImportComplete(ctx context.Context, body neon.ImportComplete) error {
	return h.client.ImportComplete(ctx, body).Err
}

// NotifySafekeepers tries until compute has been told or the control plane refuses.
func (h hook) NotifySafekeepers(ctx context.Context, body neon.NotifySafekeepers) error {
	return h.client.NotifySafekeepersUntilHeard(ctx, body)
}
