package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestSettingsOfFeatureFlagsAreCheckedAndNeverStopTheStart(t *testing.T) {
	for text, want := range map[string]string{
		"": "", `{"project_id":"p","refresh_interval":"30s","new":1}`: "level=INFO",
		"{": "Invalid posthog config", `{"project_id":1}`: "Invalid posthog config", `{"refresh_interval":"soon"}`: "level=WARN",
	} {
		var out bytes.Buffer
		checkFeatureFlags(text, slog.New(slog.NewTextHandler(&out, nil)))
		if !strings.Contains(out.String(), want) || (want == "") != (out.Len() == 0) {
			t.Errorf("%q: %s", text, &out)
		}
	}
}
