package broker

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
)

// AuditKeyPath is where each replica leaves the key that verifies the audit
// log's checkpoints: who verifies takes it from there, not from the API.
func AuditKeyPath(dir string) string { return filepath.Join(dir, "audit.pub") }

// openAudit opens the log with the keys of the broker's own ring.
func (s *shared) openAudit(ctx context.Context) (err error) {
	if s.audit, err = audit.Open(ctx, s.store, s.ring, s.Now); err != nil {
		return err
	}
	return s.publishAuditKey(ctx)
}

// publishAuditKey writes the verifier key in force to the state directory.
func (s *shared) publishAuditKey(ctx context.Context) error {
	k, err := s.audit.Keys(ctx)
	if err != nil {
		return err
	}
	if err := replaceFile(AuditKeyPath(s.cfg.StateDir), []byte(k.Current+"\n"), 0o644); err != nil {
		return fmt.Errorf("audit key: %w", err)
	}
	return nil
}
