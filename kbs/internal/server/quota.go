package server

import (
	"context"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// Quotas are a tenant's rates on this replica; what is stored is counted by its
// store. A rate that is nil has no limit.
type Quotas struct {
	Sessions *tenant.Rate // handshakes that guests open
	Releases *tenant.Rate // resources that attested guests ask for
}

// within counts one against a rate. Beyond it the caller gets a ticket, which
// is the same for a minute: no guest can write into the log as fast as it asks.
func (s *Server) within(ctx context.Context, w http.ResponseWriter, r *tenant.Rate, op operation, what string) error {
	if r == nil || r.Allow() {
		return nil
	}
	t, err := r.Ticket(func() (fault.Ticket, error) {
		return s.Tickets.Record(context.WithoutCancel(ctx), api.Explanation{
			Code: string(fault.QuotaExceeded), Stage: string(op), Object: "tenant/" + s.Tenant,
			Cause: "more " + what + " in a minute than the tenant's quota; others of the same minute have this ticket too",
		}, api.AuditEntry{Kind: api.AuditKind(op), Decision: "deny"})
	})
	if err != nil {
		return fault.Newf(fault.Internal, "record refusal: %w", err)
	}
	w.Header().Set("Retry-After", "10")
	return fault.New(fault.QuotaExceeded, tenant.ErrQuota).With(t)
}
