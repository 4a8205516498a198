package tracelog

import (
	"bytes"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/slogtest"
)

// TestHandlerKeepsTheRulesOfSlog: but that a record without a time gets that of now,
// since every line begins with one.
func TestHandlerKeepsTheRulesOfSlog(t *testing.T) {
	var out bytes.Buffer
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		if strings.HasSuffix(t.Name(), "/zero-time") {
			t.Skip("every line has a time")
		}
		out.Reset()
		return New(&out, slog.LevelDebug).Handler()
	}, func(t *testing.T) map[string]any { return parseLine(t, out.String()) })
}

// parseLine reads a line back. Its message has no `=`, its values no blanks.
func parseLine(t *testing.T, line string) map[string]any {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		t.Fatalf("no line: %q", line)
	}
	parsed := map[string]any{slog.TimeKey: fields[0], slog.LevelKey: fields[1]}
	var message []string
	for _, f := range fields[2:] {
		name, value, isAttr := strings.Cut(f, "=")
		if !isAttr {
			message = append(message, f)
			continue
		}
		if text, err := strconv.Unquote(value); err == nil {
			value = text
		}
		at := parsed
		path := strings.Split(name, ".")
		for _, group := range path[:len(path)-1] {
			inner, ok := at[group].(map[string]any)
			if !ok {
				inner = map[string]any{}
				at[group] = inner
			}
			at = inner
		}
		at[path[len(path)-1]] = value
	}
	parsed[slog.MessageKey] = strings.Join(message, " ")
	return parsed
}
