package health

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestReady(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var log bytes.Buffer
	var bad, mild error
	runs := 0
	p := New(func() time.Time { return now }, slog.New(slog.NewTextHandler(&log, nil)),
		Check{Name: "store", Run: func(context.Context) error { runs++; return bad }},
		Check{Name: "clock", Run: func(context.Context) error { return mild }, Advisory: true},
	)
	ready := func() (string, bool) {
		results, ok := p.Ready(t.Context())
		var failed []string
		for _, r := range results {
			if !r.OK {
				failed = append(failed, r.Name)
			}
		}
		return strings.Join(failed, " "), ok
	}
	if failed, ok := ready(); ok || failed != "started" || p.Started() {
		t.Errorf("before the start: %q %t", failed, ok)
	}
	p.Start()
	if failed, ok := ready(); !ok || failed != "" || runs != 1 {
		t.Errorf("after the start: %q %t, %d runs", failed, ok, runs)
	}
	bad, mild = errors.New("disk gone"), errors.New("clock was set")
	if failed, ok := ready(); !ok || runs != 1 {
		t.Errorf("a moment later: %q %t, %d runs", failed, ok, runs)
	}
	now = now.Add(keep)
	if failed, ok := ready(); ok || failed != "store clock" {
		t.Errorf("later: %q %t", failed, ok)
	}
	if !strings.Contains(log.String(), "disk gone") {
		t.Errorf("the log has %s", log.String())
	}
	bad, now = nil, now.Add(keep)
	if failed, ok := ready(); !ok || failed != "clock" {
		t.Errorf("an advisory check: %q %t", failed, ok)
	}
	p.Drain()
	if failed, ok := ready(); ok || !strings.Contains(failed, "not-draining") {
		t.Errorf("draining: %q %t", failed, ok)
	}
}

// A check that hangs fails, and does not hold the probe for ever.
func TestDeadline(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the whole deadline")
	}
	p := New(time.Now, slog.New(slog.DiscardHandler), Check{Name: "stuck", Run: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}})
	p.Start()
	start := time.Now()
	if _, ok := p.Ready(t.Context()); ok || time.Since(start) > 2*Deadline {
		t.Errorf("ready %t after %s", ok, time.Since(start))
	}
}
