package api

import (
	"encoding/hex"
	"strconv"
	"strings"

	"quorate/api/neon"
)

// Clients that watch a cluster ask for these answers again and again, or for all of them
// at once, so they are printed without reflection. They are the same bytes that
// encoding/json would print.

// tenantList prints a list of tenants, a part at a time.
func tenantList(
	part func(each func(*neon.TenantDescribe) bool) bool,
) func(b []byte) ([]byte, bool) {
	first := true
	return func(b []byte) ([]byte, bool) {
		if first {
			b = append(b, '[')
		}
		most := len(b) + partSize
		more := part(func(d *neon.TenantDescribe) bool {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = appendTenant(b, d)
			return len(b) < most
		})
		if !more {
			b = append(b, ']')
		}
		return b, more
	}
}

// tenantSize is about how long the text of a tenant is, in bytes, to begin with.
func tenantSize(d *neon.TenantDescribe) int {
	return 160 + 320*len(d.Shards) + len(d.Config.JSON())
}

func appendTenant(b []byte, d *neon.TenantDescribe) []byte {
	b = append(b, `{"tenant_id":"`...)
	b = hex.AppendEncode(b, d.Tenant[:])
	b = append(b, `","shards":[`...)
	for i := range d.Shards {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendShard(b, &d.Shards[i])
	}
	b = append(b, `],"stripe_size":`...)
	b = strconv.AppendUint(b, uint64(d.StripeSize), 10)
	b = append(b, `,"policy":`...)
	switch d.Policy.Kind {
	case neon.PlaceAttached:
		b = append(b, `{"Attached":`...)
		b = strconv.AppendUint(b, uint64(d.Policy.Secondaries), 10)
		b = append(b, '}')
	case neon.PlaceSecondary:
		b = append(b, `"Secondary"`...)
	default:
		b = append(b, `"Detached"`...)
	}
	b = append(b, `,"config":`...)
	b = appendConfig(b, d.Config)
	return append(b, '}')
}

// appendConfig prints a configuration. Its text is JSON; encoding/json escapes some
// characters of it once more, which no field but a name of somebody's choice can have.
func appendConfig(b []byte, c neon.TenantConfig) []byte {
	text := c.JSON()
	if strings.ContainsAny(text, "<>&\u2028\u2029") {
		return append(b, encoded(c)...)
	}
	return append(b, text...)
}

func appendShard(b []byte, s *neon.ShardDescribe) []byte {
	b = append(b, `{"tenant_shard_id":"`...)
	b = appendShardID(b, s.Shard)
	b = append(b, `","node_attached":`...)
	if s.Attached == nil {
		b = append(b, null...)
	} else {
		b = strconv.AppendUint(b, uint64(*s.Attached), 10)
	}
	b = append(b, `,"node_secondary":[`...)
	for i, n := range s.Secondary {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(n), 10)
	}
	b = append(b, ']')
	b = appendText(b, `,"last_error":`, s.LastError)
	b = appendBool(b, `,"is_reconciling":`, s.Reconciling)
	b = appendBool(b, `,"is_pending_compute_notification":`, s.PendingComputeNotification)
	b = appendBool(b, `,"is_splitting":`, s.Splitting)
	b = appendBool(b, `,"is_importing":`, s.Importing)
	b = appendText(b, `,"scheduling_policy":`, string(s.Scheduling))
	if s.PreferredAZ.IsZero() {
		b = append(b, `,"preferred_az_id":null`...)
	} else {
		b = appendText(b, `,"preferred_az_id":`, s.PreferredAZ.String())
	}
	return append(b, '}')
}

func appendBool(b []byte, key string, v bool) []byte {
	return strconv.AppendBool(append(b, key...), v)
}

func appendShardID(b []byte, id neon.ShardID) []byte {
	b = hex.AppendEncode(b, id.Tenant[:])
	if !id.IsUnsharded() {
		b = append(b, '-')
		b = appendHexByte(appendHexByte(b, byte(id.Number)), byte(id.Count))
	}
	return b
}

func appendHexByte(b []byte, v byte) []byte {
	const digits = "0123456789abcdef"
	return append(b, digits[v>>4], digits[v&15])
}
