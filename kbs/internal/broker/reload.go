package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/reload"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/systemd"
)

// lookEvery is how often the files are looked at for other content.
const lookEvery = 10 * time.Second

// watch reloads what changed until ctx ends: certificates, revocation lists
// and roots, and of the configuration what can change in a running broker.
func (b *Broker) watch(ctx context.Context) {
	reload.Run(ctx, lookEvery, b.Hangup, b.watched, func(ctx context.Context, files []string) {
		b.notify(ctx, systemd.Reloading)
		b.Reload(ctx, files)
		b.notify(ctx, systemd.Ready)
	})
}

// watched lists the files whose content matters to a running broker.
func (b *Broker) watched() []string {
	cfg := b.current.Load()
	out := slices.Clone(cfg.Files)
	if b.tls != nil {
		out = append(out, b.tls.certPath, b.tls.keyPath)
	}
	return append(out, cfg.Verifier.Files()...)
}

// Reload reads again what is affected by a change of files. Whatever is broken
// stays as it was, with a line in the log that nobody can miss. What changed is
// in the audit log.
func (b *Broker) Reload(ctx context.Context, files []string) {
	changed := map[string]string{}
	b.step(ctx, "configuration", b.reloadConfig(ctx, changed))
	if b.tls != nil && slices.ContainsFunc(files, func(f string) bool { return f == b.tls.certPath || f == b.tls.keyPath }) {
		err := b.tls.load()
		b.step(ctx, "certificate", err)
		if err == nil {
			changed["certificate"] = filepath.Base(b.tls.certPath)
		}
	}
	cfg := b.current.Load().Config
	if all := cfg.Verifier.Files(); slices.ContainsFunc(files, func(f string) bool { return slices.Contains(all, f) }) {
		err := b.reloadVerifiers(cfg)
		b.step(ctx, "verifier", err)
		if err == nil {
			changed["verifier"] = "files"
		}
	}
	if len(changed) == 0 {
		return
	}
	if _, err := b.audit.Append(ctx, api.AuditEntry{Kind: api.AuditBrokerReload, Decision: "change", Subject: "kbs", Details: changed}); err != nil {
		b.Logger.ErrorContext(ctx, "the reload is not in the audit log", slog.String("event_id", "reload.unaudited"), slog.Any("error", err))
	}
}

func (b *Broker) step(ctx context.Context, what string, err error) {
	if errors.Is(err, errUnchanged) {
		return
	}
	b.metrics.Reloaded(what, err)
	if err != nil {
		b.Logger.ErrorContext(ctx, "RELOAD FAILED: what was in force stays in force",
			slog.String("event_id", "reload.failed"), slog.String("what", what), slog.Any("error", err))
		return
	}
	b.Logger.InfoContext(ctx, "reloaded", slog.String("event_id", "reload.done"), slog.String("what", what))
}

var errUnchanged = errors.New("nothing changed")

// reloadConfig reads the configuration and puts in force what can be: the
// rest is listed, for the next start.
func (b *Broker) reloadConfig(ctx context.Context, changed map[string]string) error {
	if b.Load == nil {
		return errUnchanged
	}
	next, err := b.Load()
	if err != nil {
		return err
	}
	before := b.current.Load()
	atOnce, restart := config.Changes(before.Config, next.Config)
	if len(restart) > 0 {
		b.Logger.WarnContext(ctx, "these settings changed and need a restart",
			slog.String("event_id", "reload.restart_needed"), slog.Any("keys", restart))
	}
	if len(atOnce) == 0 {
		return errUnchanged
	}
	if err := b.apply(next.Config, atOnce); err != nil {
		return err
	}
	inForce := before.Adopt(next)
	b.current.Store(&inForce)
	changed["configuration"] = strings.Join(atOnce, ", ")
	b.Logger.InfoContext(ctx, "settings changed", slog.String("event_id", "reload.settings"), slog.Any("keys", atOnce))
	return nil
}

func (b *Broker) apply(cfg config.Config, keys []string) error {
	if slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "verifier.") }) {
		if err := b.reloadVerifiers(cfg); err != nil {
			return fmt.Errorf("verifier: %w", err)
		}
	}
	if b.Level != nil {
		b.Level.Set(cfg.Logging.SlogLevel())
	}
	if b.tracer != nil {
		b.tracer.SetRatio(cfg.Tracing.SampleRatio)
	}
	b.guard.Set(rates(cfg.Limits))
	b.gate.Set(width(cfg.Limits))
	b.explaining.Set(explaining(cfg.Limits))
	return nil
}

// notify tells the service manager, if there is one.
func (b *Broker) notify(ctx context.Context, states ...string) {
	if b.Notify == nil {
		return
	}
	if err := b.Notify(states...); err != nil {
		b.Logger.WarnContext(ctx, "the service manager was not told", slog.Any("error", err))
	}
}

// live tells the service manager that the broker lives until ctx ends.
func (b *Broker) live(ctx context.Context) {
	if b.Watchdog <= 0 {
		return
	}
	t := time.NewTicker(b.Watchdog)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			b.notify(ctx, systemd.Watchdog)
		}
	}
}
