package controller

import (
	"context"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// Safekeepers registers and configures safekeepers.
type Safekeepers struct{ Deps }

// NewSafekeepers makes a Safekeepers.
func NewSafekeepers(d Deps) *Safekeepers { return &Safekeepers{d} }

// List describes all safekeepers by id, from a linearizable read.
func (k *Safekeepers) List(ctx context.Context) ([]neon.SafekeeperDescribe, error) {
	s, err := k.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	all := []neon.SafekeeperDescribe{}
	for sk := range s.Safekeepers() {
		all = append(all, describeSafekeeper(sk))
	}
	return all, nil
}

// Describe describes one safekeeper, from a linearizable read.
func (k *Safekeepers) Describe(
	ctx context.Context, id neon.NodeID,
) (neon.SafekeeperDescribe, error) {
	s, err := k.Log.ReadState(ctx)
	if err != nil {
		return neon.SafekeeperDescribe{}, err
	}
	sk, ok := s.Safekeeper(id)
	if !ok {
		return neon.SafekeeperDescribe{}, neon.Errorf(neon.NotFound, "unknown instance id")
	}
	return describeSafekeeper(&sk), nil
}

func describeSafekeeper(k *fsm.Safekeeper) neon.SafekeeperDescribe {
	return neon.SafekeeperDescribe{
		ID: k.ID, Region: k.Region, Version: k.Version, Host: k.Host, Port: k.Port,
		HTTPPort:  k.HTTPPort,
		HTTPSPort: portOrNull(k.HTTPSPort), AZ: k.AZ.String(), Scheduling: k.Scheduling,
		Gone: k.Gone,
	}
}

// Upsert registers a safekeeper or updates what is known of it. The id is that of the
// path, and the body must have the same.
func (k *Safekeepers) Upsert(ctx context.Context, id neon.NodeID, req neon.SafekeeperUpsert) error {
	switch {
	case req.ID != int64(id):
		return neon.Errorf(neon.BadRequest, "id mismatch: url=%d, body=%d", id, req.ID)
	case req.ID <= 0:
		return neon.Errorf(neon.BadRequest, "id not allowed to be zero or negative: %d", req.ID)
	case k.Options.UseHTTPSSafekeepers && req.HTTPSPort == nil:
		return neon.Errorf(neon.PreconditionFailed,
			"cannot upsert safekeeper %d: https is enabled, but https port is not specified", id)
	case req.Version < 0:
		return neon.Errorf(neon.Internal, "negative version: %d", req.Version)
	}
	c := fsm.UpsertSafekeeper{
		ID: id, Region: req.Region, Version: req.Version, Host: req.Host, Port: req.Port,
		HTTPPort: req.HTTPPort, AZ: neon.MakeAZ(req.AZ),
	}
	if req.HTTPSPort != nil {
		c.HTTPSPort = *req.HTTPSPort
	}
	_, err := decide.Propose(ctx, k.Log, c)
	return err
}

// SetScheduling sets the scheduling policy of a safekeeper.
func (k *Safekeepers) SetScheduling(
	ctx context.Context, id neon.NodeID, to neon.SafekeeperScheduling,
) error {
	_, err := decide.Commit(ctx, k.Log, func(s *fsm.State) (fsm.Command, error) {
		sk, ok := s.Safekeeper(id)
		switch {
		case !ok:
			return nil, neon.Errorf(neon.Internal, "unexpected number of rows (0)")
		case sk.Scheduling == to:
			return nil, nil
		}
		return fsm.SetSafekeeperScheduling{Safekeeper: id, To: to}, nil
	})
	return err
}

// Settle declares a decommissioned safekeeper gone for good: it is not waited for any more.
func (k *Safekeepers) Settle(ctx context.Context, id neon.NodeID) error {
	_, err := decide.Commit(ctx, k.Log, func(s *fsm.State) (fsm.Command, error) {
		sk, ok := s.Safekeeper(id)
		switch {
		case !ok:
			return nil, neon.Errorf(neon.NotFound, "unknown instance id")
		case sk.Gone:
			return nil, nil
		}
		return fsm.SettleSafekeeper{Safekeeper: id}, nil
	})
	return err
}
