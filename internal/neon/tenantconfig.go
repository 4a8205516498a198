package neon

import "unique"

// TenantConfig is the configuration of a tenant as pageservers understand it. It
// is opaque to the controller: kept as canonical JSON (the pageservers' field
// order, durations normalised) and interned, so that a hundred thousand tenants
// with the same configuration share one string. The zero value is `{}`.
// TenantConfigs are comparable with ==.
type TenantConfig struct{ h unique.Handle[string] }

var none unique.Handle[string]

// JSON is the canonical text.
func (c TenantConfig) JSON() string {
	if c.h == none {
		return "{}"
	}
	return c.h.Value()
}

// IsZero tells whether no field is set.
func (c TenantConfig) IsZero() bool { return c.h == none }
