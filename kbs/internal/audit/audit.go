// Package audit keeps the broker's append-only log as a Merkle tree (RFC 6962
// hashing), so that an entry cannot be changed or dropped without the signed
// checkpoints disagreeing.
//
// Every attestation, release, refusal and change is appended before the answer
// leaves the broker: a caller that holds an answer can rely on its entry.
package audit

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Recorder appends entries. Index and Time of the given entry are set by the
// log; the stored entry is returned. An error means that nothing was recorded
// and the caller must not answer.
type Recorder interface {
	Append(ctx context.Context, e api.AuditEntry) (api.AuditEntry, error)
	// AppendTx appends within a transaction, so that an entry and the change
	// it describes become durable together.
	AppendTx(tx store.Tx, e api.AuditEntry) (api.AuditEntry, error)
}
