package broker

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit/ocsf"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit/sink"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// AuditKeyPath is where each replica leaves the key that verifies the audit
// log's checkpoints: who verifies takes it from there, not from the API.
func AuditKeyPath(dir string) string { return filepath.Join(dir, "audit.pub") }

// openAudit opens the log with the keys of the broker's own ring, and the
// sinks that it is delivered to.
func (s *shared) openAudit(ctx context.Context) (err error) {
	if s.audit, err = audit.Open(ctx, s.store, s.ring, s.Now); err != nil {
		return err
	}
	if err := s.publishAuditKey(ctx); err != nil {
		return err
	}
	specs, err := s.sinkSpecs()
	if err != nil {
		return err
	}
	s.sinks, err = sink.Open(ctx, sink.Config{
		Store: s.store, Log: s.audit, Recorder: s.audit, Holder: hex.EncodeToString(secret.Random(8).Reveal()),
		Now: s.Now, Logger: s.Logger,
	}, specs)
	s.background = append(s.background, s.keepCheckpoints, s.sinks.Run)
	return err
}

// publishAuditKey writes the verifier key in force to the state directory.
func (s *shared) publishAuditKey(ctx context.Context) error {
	k, err := s.audit.Keys(ctx)
	if err != nil {
		return err
	}
	path, text := AuditKeyPath(s.cfg.StateDir), k.Current+"\n"
	if have, err := os.ReadFile(path); err == nil && string(have) == text {
		return nil
	}
	if err := replaceFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("audit key: %w", err)
	}
	return nil
}

// keepCheckpoints signs the log now and then, so that what an attacker could
// cut off unseen is never more than the last few seconds, and follows a
// rotation of the key by another replica.
func (s *shared) keepCheckpoints(ctx context.Context) {
	t := time.NewTicker(s.cfg.Audit.CheckpointInterval())
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.signLog(ctx)
			s.dropArchived(ctx)
		}
	}
}

// dropArchived takes what is archived out of the store, a batch in a transaction:
// others write in between.
func (s *shared) dropArchived(ctx context.Context) {
	all := 0
	for ctx.Err() == nil {
		n, err := s.audit.Drop(ctx)
		if err != nil && ctx.Err() == nil {
			s.Logger.WarnContext(ctx, "archived entries of the audit log were not dropped", slog.Any("error", err))
		}
		if err != nil || n == 0 {
			break
		}
		all += n
	}
	if all > 0 {
		s.Logger.InfoContext(ctx, "archived entries of the audit log were dropped", slog.Int("count", all))
	}
}

func (s *shared) signLog(ctx context.Context) {
	_, err := s.audit.Checkpoint(ctx)
	if err == nil {
		err = s.publishAuditKey(ctx)
	}
	if err != nil && ctx.Err() == nil {
		s.Logger.ErrorContext(ctx, "the audit log cannot be signed", slog.Any("error", err))
	}
}

func (s *shared) sinkSpecs() ([]sink.Spec, error) {
	var specs []sink.Spec
	for _, c := range s.cfg.Audit.Sinks {
		made, err := s.openSink(c)
		if err != nil {
			return nil, fmt.Errorf("audit sink %s: %w", c.Name, err)
		}
		specs = append(specs, sink.Spec{
			Name: c.Name, Type: c.Type, Sink: made, Timeout: c.Timeout(),
			Required: c.Required, MaxLag: c.MaxLag(), MaxEntries: int64(c.MaxLagEntries),
		})
	}
	return specs, nil
}

// openSink makes a sink. It reaches out to nothing yet: a receiver that is down
// does not keep the broker from starting.
func (s *shared) openSink(c config.AuditSink) (sink.Sink, error) {
	source := ocsf.Source{Log: s.audit.Origin(), Version: s.Version}
	format := map[string]sink.Format{
		config.FormOCSF: sink.AsOCSF(source), config.FormEntry: sink.AsEntry, config.FormCEF: sink.AsCEF(source),
	}[c.Form()]
	if c.Type == config.SinkFile {
		return &sink.File{Path: c.Path, MaxSize: c.MaxSize(), Keep: c.Keep, Sync: c.Fsync != "none", Format: format}, nil
	}
	tls, err := sink.TLS(c.CAFile, c.Certificate, c.PrivateKey)
	if err != nil {
		return nil, err
	}
	to := sink.HTTP{URL: c.URL, Authorization: c.AuthorizationFile, Client: sink.NewClient(tls)}
	switch c.Type {
	case config.SinkSyslog:
		host, err := os.Hostname()
		return &sink.Syslog{Address: c.Address, Hostname: host, TLS: tls, Source: source, Format: format}, err
	case config.SinkWebhook:
		return &sink.Webhook{HTTP: to, Log: source.Log, Secret: c.SecretFile, Format: format, Now: s.Now}, nil
	case config.SinkOTLP:
		to.URL = strings.TrimSuffix(c.URL, "/") + "/v1/logs"
		return &sink.OTLP{HTTP: to, Source: source, Format: format}, nil
	}
	return nil, fmt.Errorf("there is no type %q", c.Type)
}
