package main

import (
	"encoding/json"
	"log/slog"

	"quorate/internal/neon"
)

// checkFeatureFlags looks at the settings of feature flags that launchers put into
// the environment. This program pushes no flags: pageservers that have the same
// settings fetch them by themselves.
func checkFeatureFlags(text string, log *slog.Logger) {
	if text == "" {
		return
	}
	var settings struct {
		Project  *string        `json:"project_id"`
		Server   *string        `json:"server_api_key"`
		Client   *string        `json:"client_api_key"`
		Private  *string        `json:"private_api_url"`
		Public   *string        `json:"public_api_url"`
		Interval *neon.Duration `json:"refresh_interval"`
	}
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		log.Warn("Invalid posthog config: it is ignored", "err", err)
		return
	}
	log.Info("Feature flags are not pushed to pageservers, which fetch them by themselves")
}
