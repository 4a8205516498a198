package plan

import (
	"quorate/api/neon"
)

// Conf is what a location is, in the comparable form that seen locations are kept
// in. The zero Mode means nothing is there.
type Conf struct {
	Mode       neon.LocationMode
	Generation neon.Generation
	Stripe     neon.StripeSize
	Config     neon.TenantConfig
}

// LocationConfig is the configuration as pageservers spell it.
func (c Conf) LocationConfig(id neon.ShardID) *neon.LocationConfig {
	w := &neon.LocationConfig{
		Mode: c.Mode, ShardNumber: id.Number, ShardCount: id.Count, StripeSize: c.Stripe,
		TenantConf: c.Config,
	}
	switch {
	case c.Mode.Attached():
		g := c.Generation
		w.Generation = &g
	case c.Mode == neon.Secondary:
		w.SecondaryConf = &neon.SecondaryConf{Warm: true}
	}
	return w
}

// ConfOf is the inverse of Conf.LocationConfig. It is nil for nil, which is a location that the
// pageserver is changing.
func ConfOf(w *neon.LocationConfig) *Conf {
	if w == nil {
		return nil
	}
	c := &Conf{Mode: w.Mode, Config: w.TenantConf}
	if w.ShardCount != 0 {
		c.Stripe = w.StripeSize
	}
	if w.Mode == neon.Detached {
		return &Conf{}
	}
	if w.Generation != nil && w.Mode.Attached() {
		c.Generation = *w.Generation
	}
	return c
}
