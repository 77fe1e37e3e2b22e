// Package ticket keeps the private side of refusals: what a guest sees as a
// code and a ticket, an administrator opens here.
package ticket

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Book records refusals together with their audit entry, in one transaction.
type Book interface {
	// Record stores the explanation under a new ticket and appends the audit
	// entry (its Code, Ticket, Subject and Object are taken from the
	// explanation). It returns the ticket.
	Record(ctx context.Context, e api.Explanation, entry api.AuditEntry) (fault.Ticket, error)
	// RecordTx is Record within a transaction of the same store, so that a
	// refusal becomes durable together with what it ends.
	RecordTx(tx store.Tx, e api.Explanation, entry api.AuditEntry) (fault.Ticket, error)
	// Explain returns store.ErrNotFound for an unknown ticket.
	Explain(ctx context.Context, t fault.Ticket) (api.Explanation, error)
	// List returns explanations, newest first, at most limit of them.
	List(ctx context.Context, limit int) ([]api.Explanation, error)
	// Groups returns refusals by their root cause, the last met first, at most
	// limit of them; those that are silenced only if asked for.
	Groups(ctx context.Context, limit int, silenced bool) ([]api.TicketGroup, error)
	// Group returns store.ErrNotFound for an unknown group.
	Group(ctx context.Context, id string) (api.TicketGroup, error)
	// SilenceTx leaves a group out of the listing until s.Until; its refusals go
	// on being recorded and counted. The reason is required.
	SilenceTx(tx store.Tx, id string, s api.Silence) (api.Silence, error)
	// EndSilenceTx returns store.ErrNotFound for a group that is not silenced.
	EndSilenceTx(tx store.Tx, id string) error
}
