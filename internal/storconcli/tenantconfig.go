package storconcli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

// configCommands set the configuration that the controller passes on to pageservers.
type configCommands struct{ *session }

func (s configCommands) all() []*cobra.Command {
	return []*cobra.Command{
		s.set(), s.patch(), s.setTimeBasedEviction(),
	}
}

const configPath = "v1/tenant/config"

func (s configCommands) set() *cobra.Command {
	var id neon.TenantID
	var text string
	cmd := s.leaf("set-tenant-config", "Replace the pageserver configuration of a tenant",
		func(ctx context.Context) error {
			config, err := neon.ParseTenantConfig([]byte(text), neon.RejectUnknown)
			if err != nil {
				return err
			}
			return s.client.put(ctx, configPath, neon.ConfigRequest{Tenant: id, Config: config})
		})
	needTenant(cmd, &id)
	need(cmd, "config", &text, parseText, "The whole configuration, in JSON")
	return cmd
}

// configPatch is the body of PATCH v1/tenant/config.
type configPatch struct {
	tenant neon.TenantID
	fields json.RawMessage // an object
}

func (p configPatch) MarshalJSON() ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(p.fields, &fields); err != nil {
		return nil, err
	}
	fields["tenant_id"] = fmt.Appendf(nil, "%q", p.tenant)
	return json.Marshal(fields)
}

func (s configCommands) patch() *cobra.Command {
	var id neon.TenantID
	var text string
	cmd := s.leaf("patch-tenant-config",
		"Change the pageserver configuration of a tenant: null unsets a field, those not named stay",
		func(ctx context.Context) error {
			if _, err := (neon.TenantConfig{}).Patch([]byte(text)); err != nil {
				return err
			}
			body := configPatch{tenant: id, fields: json.RawMessage(text)}
			return s.client.call(ctx,
				exchange{method: http.MethodPatch, path: configPath, body: body})
		})
	needTenant(cmd, &id)
	need(cmd, "config", &text, parseText, "The fields to change, in JSON")
	return cmd
}

// evictionHeatmapPeriod is how often a tenant with time-based eviction uploads its
// heatmap. Its secondaries evict by the heatmap.
const evictionHeatmapPeriod = `"5m"`

func (s configCommands) setTimeBasedEviction() *cobra.Command {
	var id neon.TenantID
	var period, threshold neon.Duration
	cmd := s.leaf("tenant-set-time-based-eviction",
		"Replace the pageserver configuration of a tenant by one that evicts layers not used for a while",
		func(ctx context.Context) error {
			policy := fmt.Sprintf(`{"kind":"LayerAccessThreshold","period":%q,"threshold":%q}`,
				period, threshold)
			config, err := neon.TenantConfig{}.With("eviction_policy", []byte(policy))
			if err != nil {
				return err
			}
			if config, err = config.With(
				"heatmap_period", []byte(evictionHeatmapPeriod)); err != nil {
				return err
			}
			return s.client.put(ctx, configPath, neon.ConfigRequest{Tenant: id, Config: config})
		})
	needTenant(cmd, &id)
	need(cmd, "period", &period, neon.ParseDuration,
		"How often to look for layers to evict, e.g. 10m")
	need(cmd, "threshold", &threshold, neon.ParseDuration,
		"How long a layer must not have been used, e.g. 24h")
	return cmd
}
