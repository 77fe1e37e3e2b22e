// Package audit keeps the broker's append-only log as a Merkle tree (RFC 6962
// hashing), so that an entry cannot be changed or dropped without the signed
// checkpoints disagreeing.
//
// Every attestation, release, refusal and change is appended before the answer
// leaves the broker: a caller that holds an answer can rely on its entry.
//
// The log lives in the broker's store, so an entry becomes durable in the same
// transaction as the change it describes, and any replica can append. Indexes
// are contiguous from 0: the transaction that appends also moves the size. A
// leaf is the entry's canonical JSON (RFC 8785), a checkpoint is a signed note
// (C2SP tlog-checkpoint), and [Verify] needs only these two and the public key.
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
