package neon

import (
	"encoding/json"
	"strings"
	"unique"
)

// TenantConfig is the configuration of a tenant as pageservers understand it. The
// controller does not interpret it. It is kept as canonical JSON, which has the fields in
// the order of the pageservers and normalised durations. It is interned, so that a
// hundred thousand tenants with the same configuration share one string. TenantConfigs
// are comparable with ==. The zero value is `{}`.
type TenantConfig struct{ h unique.Handle[string] }

var none unique.Handle[string]

// Unknown says what a parser does with a field that it does not know.
type Unknown uint8

// What to do with unknown fields. Requests reject them, so that a typing error does not
// go unnoticed. Texts of pageservers and from disk ignore them, since their writer may
// be newer than this program.
const (
	RejectUnknown Unknown = iota
	IgnoreUnknown
)

// ParseTenantConfig reads a JSON object of configuration fields. Null leaves a field
// unset. Every value must fit the kind of its field, and is normalised. Errors are
// BadRequest.
func ParseTenantConfig(text []byte, unknown Unknown) (TenantConfig, error) {
	var d configDraft
	if err := d.merge(text, unknown); err != nil {
		return TenantConfig{}, Errorf(BadRequest, "tenant config: %w", err)
	}
	return d.config(), nil
}

// JSON returns the canonical text.
func (c TenantConfig) JSON() string {
	if c.h == none {
		return "{}"
	}
	return c.h.Value()
}

// IsZero reports whether no field is set.
func (c TenantConfig) IsZero() bool { return c.h == none }

// MarshalJSON returns JSON as bytes.
func (c TenantConfig) MarshalJSON() ([]byte, error) { return []byte(c.JSON()), nil }

// UnmarshalJSON is ParseTenantConfig with IgnoreUnknown.
func (c *TenantConfig) UnmarshalJSON(b []byte) (err error) {
	*c, err = ParseTenantConfig(b, IgnoreUnknown)
	return err
}

// Field returns the canonical JSON text of one field. ok is false when it is not set.
func (c TenantConfig) Field(name string) (text string, ok bool) {
	if i := fieldIndex(name); i >= 0 && !c.IsZero() {
		d := c.draft()
		return d[i], d[i] != ""
	}
	return "", false
}

// With returns the configuration with one field set to a JSON value. Null unsets it. A
// field that does not exist and a value that does not fit are BadRequest.
func (c TenantConfig) With(field string, value []byte) (TenantConfig, error) {
	d := c.draft()
	i := fieldIndex(field)
	if i < 0 {
		return TenantConfig{}, Errorf(BadRequest, "tenant config: unknown field `%s`", field)
	}
	if err := d.set(i, value); err != nil {
		return TenantConfig{}, Errorf(BadRequest, "tenant config: %w", err)
	}
	return d.config(), nil
}

// Without returns the configuration with one field unset.
func (c TenantConfig) Without(field string) TenantConfig {
	d := c.draft()
	if i := fieldIndex(field); i >= 0 {
		d[i] = ""
	}
	return d.config()
}

// Patch returns the configuration with the fields of a JSON object set. Fields that are
// null there are unset. Fields that are not there are kept. Unknown fields and values
// that do not fit are BadRequest.
func (c TenantConfig) Patch(patch []byte) (TenantConfig, error) {
	d := c.draft()
	if err := d.merge(patch, RejectUnknown); err != nil {
		return TenantConfig{}, Errorf(BadRequest, "tenant config: %w", err)
	}
	return d.config(), nil
}

// defaultHeatmapPeriod is how often an attached location uploads the heatmap for its
// secondaries, when the tenant does not say.
const defaultHeatmapPeriod = `"heatmap_period":"1m"`

// ForLocation returns the configuration to send to a pageserver for a shard with so
// many secondaries. Heatmaps are uploaded exactly when there is a secondary to read
// them. The result must not be stored as the configuration of the tenant.
func (c TenantConfig) ForLocation(secondaries int) TenantConfig {
	// Quotes inside strings are escaped, so the key cannot occur in a value.
	set := strings.Contains(c.JSON(), `"heatmap_period":`)
	switch {
	case set == (secondaries > 0):
		return c
	case set:
		return c.Without("heatmap_period")
	case c.IsZero():
		return TenantConfig{unique.Make("{" + defaultHeatmapPeriod + "}")}
	}
	d := c.draft()
	d[fieldIndex("heatmap_period")] = `"1m"`
	return d.config()
}

// configDraft holds the canonical texts of the fields, empty where unset.
type configDraft [len(configFields)]string

// draft takes the configuration apart again.
func (c TenantConfig) draft() (d configDraft) {
	if c.IsZero() {
		return d
	}
	text := []byte(c.JSON())
	at := 0
	err := eachField(text, func(key string, raw []byte) error {
		for i := at; i < len(d); i++ { // the text is in the order of the table
			if configFields[i].name == key {
				d[i], at = string(raw), i+1
				break
			}
		}
		return nil
	})
	if err != nil {
		panic("neon: canonical tenant config does not parse: " + c.JSON())
	}
	return d
}

// merge sets what the JSON object text says.
func (d *configDraft) merge(text []byte, unknown Unknown) error {
	if !json.Valid(text) {
		return errSyntax
	}
	var seen [len(configFields)]bool
	return eachField(text, func(key string, raw []byte) error {
		i := fieldIndex(key)
		if i < 0 {
			if unknown == RejectUnknown {
				return Errorf(BadRequest, "unknown field `%s`", key)
			}
			return nil
		}
		if seen[i] {
			return Errorf(BadRequest, "duplicate field `%s`", key)
		}
		seen[i] = true
		return d.set(i, raw)
	})
}

// set gives field i the JSON value raw; null unsets it.
func (d *configDraft) set(i int, raw []byte) error {
	if isNull(raw) {
		d[i] = ""
		return nil
	}
	b, err := configFields[i].kind.appendCanonical(nil, raw)
	if err != nil {
		return Errorf(BadRequest, "%s: %w", configFields[i].name, err)
	}
	d[i] = string(b)
	return nil
}

func (d *configDraft) config() TenantConfig {
	size := 0
	for i, text := range d {
		if text != "" {
			size += len(configFields[i].name) + len(text) + 4
		}
	}
	if size == 0 {
		return TenantConfig{}
	}
	b := make([]byte, 0, size+1)
	for i, text := range d {
		if text == "" {
			continue
		}
		b = append(b, ',', '"')
		b = append(b, configFields[i].name...)
		b = append(b, '"', ':')
		b = append(b, text...)
	}
	b[0] = '{'
	return TenantConfig{unique.Make(string(append(b, '}')))}
}
