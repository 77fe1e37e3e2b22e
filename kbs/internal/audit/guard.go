package audit

import (
	"context"
	"errors"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// ErrHeld says that a required sink is too far behind, so that what must be
// seen there does not happen.
var ErrHeld = errors.New("audit: a required sink has not confirmed the log for too long")

// Guard returns a recorder that records no release, and no change by an
// administrator, while behind returns an error: and what is not recorded does
// not happen. Refusals and failures are recorded all the same, and so is what
// the broker does of itself. The error is fault.Unavailable and wraps
// [ErrHeld].
func Guard(rec Recorder, behind func() error) Recorder { return guard{rec, behind} }

type guard struct {
	rec    Recorder
	behind func() error
}

func (g guard) check(e api.AuditEntry) error {
	release := e.Kind == api.AuditRelease && e.Decision == "allow"
	change := e.Decision == "change" && strings.HasPrefix(e.Subject, "admin:")
	if !release && !change {
		return nil
	}
	if err := g.behind(); err != nil {
		return fault.Newf(fault.Unavailable, "%w: %w", ErrHeld, err)
	}
	return nil
}

func (g guard) Append(ctx context.Context, e api.AuditEntry) (api.AuditEntry, error) {
	if err := g.check(e); err != nil {
		return api.AuditEntry{}, err
	}
	return g.rec.Append(ctx, e)
}

func (g guard) AppendTx(tx store.Tx, e api.AuditEntry) (api.AuditEntry, error) {
	if err := g.check(e); err != nil {
		return api.AuditEntry{}, err
	}
	return g.rec.AppendTx(tx, e)
}
