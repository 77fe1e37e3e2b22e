// Package ticket keeps the private side of refusals: what a guest sees as a
// code and a ticket, an administrator opens here.
package ticket

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Book records refusals together with their audit entry, in one transaction.
type Book interface {
	// Record stores the explanation under a new ticket and appends the audit
	// entry (its Code, Ticket, Subject and Object are taken from the
	// explanation). It returns the ticket.
	Record(ctx context.Context, e api.Explanation, entry api.AuditEntry) (fault.Ticket, error)
	// Explain returns store.ErrNotFound for an unknown ticket.
	Explain(ctx context.Context, t fault.Ticket) (api.Explanation, error)
	// List returns explanations, newest first, at most limit of them.
	List(ctx context.Context, limit int) ([]api.Explanation, error)
}
