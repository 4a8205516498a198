package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/internal/secretfiles"
)

func TestASecretThatCannotBeUsedIsInTheMetrics(t *testing.T) {
	if text := exposed(t, newSecretMetrics(nil)); text != "" {
		t.Errorf("without files there is %s", text)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		files := secretfiles.New(time.Minute, slog.New(slog.DiscardHandler))
		var token secretfiles.Token
		if err := files.Add("jwt-token", file, token.Take); err != nil {
			t.Fatal(err)
		}
		go files.Run(t.Context())
		for _, step := range []struct{ text, stale, reloads string }{
			{"one", "value:0", "value:0"}, {"two", "value:0", "value:1"},
			{"", "value:1", "value:1"}, {"three", "value:0", "value:2"},
		} {
			if err := os.WriteFile(file, []byte(step.text), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			lines := strings.Split(exposed(t, newSecretMetrics(files)), "\n")
			if !strings.Contains(lines[0], step.reloads) ||
				!strings.Contains(lines[1], step.stale) {
				t.Errorf("after %q: %q", step.text, lines)
			}
		}
	})
}
