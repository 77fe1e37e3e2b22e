package logging

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	var level slog.LevelVar
	log := New(&out, "json", &level).With(slog.String("tenant", "blue"))
	r := &observe.Request{TraceID: "abc"}
	ctx := observe.Begin(context.Background(), nil, r)
	log.InfoContext(ctx, "hello", slog.String("event_id", "x.y"))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"msg": "hello", "event_id": "x.y", "trace_id": "abc", "tenant": "blue", "level": "INFO"} {
		if line[key] != want {
			t.Errorf("%s is %v", key, line[key])
		}
	}
	out.Reset()
	log.Debug("quiet")
	level.Set(slog.LevelDebug)
	log.Debug("loud")
	if text := out.String(); strings.Contains(text, "quiet") || !strings.Contains(text, "loud") || strings.Contains(text, "trace_id") {
		t.Error(text)
	}
	out.Reset()
	New(&out, "text", &level).WithGroup("g").InfoContext(ctx, "hello", slog.Int("n", 1))
	if text := out.String(); !strings.Contains(text, "msg=hello") || !strings.Contains(text, "g.n=1") {
		t.Error(text)
	}
}
