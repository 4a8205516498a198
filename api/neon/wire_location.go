package neon

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// UnmarshalJSON reads the wire form. It requires mode and tenant_conf, and ignores
// unknown fields.
func (c *LocationConfig) UnmarshalJSON(b []byte) error {
	return c.decode(b, locationDecoder{unknown: IgnoreUnknown})
}

// LocationConfigRequest is the body of PUT …/location_config, both of the controller and
// of a pageserver. It is a LocationConfig that refuses unknown fields.
type LocationConfigRequest LocationConfig

// UnmarshalJSON reads the wire form and rejects unknown fields.
func (r *LocationConfigRequest) UnmarshalJSON(b []byte) error {
	return (*LocationConfig)(r).decode(b, locationDecoder{unknown: RejectUnknown})
}

// LocationConfigResponse is the answer of the controller's PUT …/location_config. It
// lists the locations that the request was about.
type LocationConfigResponse struct {
	Shards     List[ShardLocation] `json:"shards"`
	StripeSize *StripeSize         `json:"stripe_size"` // only of sharded tenants
}

// ShardLocation is a shard and the pageserver that it is on.
type ShardLocation struct {
	Shard ShardID `json:"shard_id"`
	Node  NodeID  `json:"node_id"`
}

// ListedLocation is one location in the listing of a pageserver. Config is nil while the
// pageserver is changing the location: it does not say then what the location is. It is
// nil also for one that we cannot read, which says nothing about the others.
type ListedLocation struct {
	Shard  ShardID
	Config *LocationConfig
}

// LocationListing is the answer of a pageserver's GET /v1/location_config:
// {"tenant_shards":[[shard, config or null], …]}.
type LocationListing []ListedLocation

// MarshalJSON prints the wire form.
func (l LocationListing) MarshalJSON() ([]byte, error) {
	pairs := make([][2]any, len(l))
	for i, e := range l {
		pairs[i] = [2]any{e.Shard, e.Config}
	}
	return json.Marshal(map[string]any{"tenant_shards": pairs})
}

// UnmarshalJSON is ParseLocationListing.
func (l *LocationListing) UnmarshalJSON(b []byte) (err error) {
	*l, err = ParseLocationListing(b)
	return err
}

// ParseLocationListing reads a listing in one pass, and parses equal tenant
// configurations once. After an election the controller reads a hundred thousand entries
// from each pageserver.
func ParseLocationListing(b []byte) (LocationListing, error) {
	l := LocationListing{}
	found := false
	d := locationDecoder{unknown: IgnoreUnknown, confs: make(map[string]TenantConfig)}
	err := eachField(b, func(key string, raw []byte) error {
		if key != "tenant_shards" {
			return nil
		}
		found = true
		return eachElement(raw, func(raw []byte) error {
			e, err := d.listed(raw)
			if err != nil {
				return fmt.Errorf("tenant_shards[%d]: %w", len(l), err)
			}
			l = append(l, e)
			return nil
		})
	})
	if err == nil && !found {
		err = fmt.Errorf("missing field `tenant_shards`")
	}
	if err != nil {
		return nil, fmt.Errorf("location listing: %w", err)
	}
	return l, nil
}

// locationDecoder decodes LocationConfigs. Unless confs is nil, it keeps the tenant
// configurations that it has parsed there, by their text.
type locationDecoder struct {
	unknown Unknown
	confs   map[string]TenantConfig
}

func (d locationDecoder) listed(raw []byte) (e ListedLocation, err error) {
	n := 0
	err = eachElement(raw, func(raw []byte) error {
		n++
		switch {
		case n == 1:
			id, err := plainString(raw)
			if err != nil {
				return err
			}
			e.Shard, err = ParseShardID(id)
			return err
		case n == 2 && isNull(raw):
			return nil
		case n == 2:
			conf := new(LocationConfig)
			if conf.decode(raw, d) == nil {
				e.Config = conf
			}
			return nil
		}
		return fmt.Errorf("expected a pair")
	})
	if err == nil && n != 2 {
		err = fmt.Errorf("expected a pair")
	}
	return e, err
}

func (d locationDecoder) tenantConf(raw []byte) (TenantConfig, error) {
	if c, ok := d.confs[string(raw)]; ok {
		return c, nil
	}
	c, err := ParseTenantConfig(raw, IgnoreUnknown)
	if err == nil && d.confs != nil {
		d.confs[string(raw)] = c
	}
	return c, err
}

// locationFields are the fields of a LocationConfig, the required ones first.
var locationFields = [...]string{
	"mode", "tenant_conf", "generation", "secondary_conf", "shard_number", "shard_count",
	"shard_stripe_size",
}

// decode reads the object b into c.
func (c *LocationConfig) decode(b []byte, d locationDecoder) error {
	*c = LocationConfig{}
	var seen [len(locationFields)]bool
	err := eachField(b, func(key string, raw []byte) (err error) {
		if i := slices.Index(locationFields[:], key); i >= 0 {
			if seen[i] {
				return duplicate(key)
			}
			seen[i] = true
		}
		var n uint64
		switch key {
		case "mode":
			var text string
			if text, err = plainString(raw); err == nil {
				err = c.Mode.UnmarshalText([]byte(text))
			}
		case "generation":
			if !isNull(raw) {
				n, err = wireUint(raw, 32)
				c.Generation = new(Generation(n))
			}
		case "secondary_conf":
			c.SecondaryConf, err = decodeSecondaryConf(raw)
		case "shard_number":
			n, err = wireUint(raw, 8)
			c.ShardNumber = ShardNumber(n)
		case "shard_count":
			n, err = wireUint(raw, 8)
			c.ShardCount = ShardCount(n)
		case "shard_stripe_size":
			n, err = wireUint(raw, 32)
			c.StripeSize = StripeSize(n)
		case "tenant_conf":
			c.TenantConf, err = d.tenantConf(raw)
		default:
			if d.unknown == RejectUnknown {
				return fmt.Errorf("unknown field `%s`", key)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !seen[0]:
		return missing("mode")
	case !seen[1]:
		return missing("tenant_conf")
	}
	return nil
}

func decodeSecondaryConf(raw []byte) (*SecondaryConf, error) {
	if isNull(raw) {
		return nil, nil
	}
	v, err := members(raw, "warm")
	if err != nil {
		return nil, err
	}
	switch string(v[0]) {
	case "true":
		return &SecondaryConf{Warm: true}, nil
	case "false":
		return &SecondaryConf{}, nil
	}
	return nil, fmt.Errorf("warm: expected a boolean, have %s", clip(v[0]))
}

func wireUint(raw []byte, bits int) (uint64, error) {
	n, err := strconv.ParseUint(string(raw), 10, bits)
	if err != nil {
		return 0, fmt.Errorf("expected an unsigned integer of %d bits, have %s", bits, clip(raw))
	}
	return n, nil
}
