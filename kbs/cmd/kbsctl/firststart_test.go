package main

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/ctl"
)

// What `kbs serve` leaves in its state directory at its first start is all that
// kbsctl needs: certificate, token, and the key of the log.
func TestFirstStart(t *testing.T) {
	cfg := config.Default(func(string) string { return "" })
	cfg.StateDir = t.TempDir()
	cfg.HTTPServer.Sockets, cfg.HTTPServer.AdminSockets, cfg.HTTPServer.MetricsSockets = []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}, nil
	b, err := broker.Open(t.Context(), cfg, broker.Options{Logger: slog.New(slog.DiscardHandler), Now: time.Now, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := b.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, listeners) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	env := map[string]string{
		"HOME":           t.TempDir(),
		"KBS_SERVER":     "https://" + listeners.Admin[0].Addr().String(),
		"KBS_CA":         filepath.Join(cfg.StateDir, "tls", "cert.pem"),
		"KBS_TOKEN_FILE": filepath.Join(cfg.StateDir, "admin", "token"),
	}
	for _, tt := range []struct{ line, want string }{
		{"list policies -o name", "policy/attestation/default_cpu\n"},
		{"create refvalue a x", "refvalue/a created\n"},
		{"audit verify --log-key " + filepath.Join(cfg.StateDir, "audit.pub"), "verified "},
	} {
		var out, msg bytes.Buffer
		code := run(t.Context(), strings.Fields(tt.line), func(k string) string { return env[k] },
			ctl.Stdio{In: strings.NewReader(""), Out: &out, Err: &msg})
		if code != 0 || !strings.HasPrefix(out.String(), tt.want) || msg.Len() != 0 {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", tt.line, code, &out, &msg)
		}
	}
}
