package policy

import (
	"context"

	"github.com/open-policy-agent/opa/v1/storage"
)

// notebook is a read-only OPA store whose contents travel in the transaction: a
// world's notes never change, so that evaluations need no lock and no copy.
type notebook struct {
	storage.WritesNotSupported
	storage.TriggersNotSupported
	storage.PolicyNotSupported
}

type transaction struct{ notes map[string]any }

// ID is the same for all: nothing in a read-only store tells them apart.
func (*transaction) ID() uint64 { return 1 }

// NewTransaction is for whoever has no notes.
func (notebook) NewTransaction(context.Context, ...storage.TransactionParams) (storage.Transaction, error) {
	return &transaction{}, nil
}

// Read returns the document at a path; only notes are there.
func (notebook) Read(_ context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	t, ok := txn.(*transaction)
	if !ok {
		return nil, &storage.Error{Code: storage.InvalidTransactionErr}
	}
	var node any = map[string]any{notesRoot: t.notes}
	for _, token := range path {
		var err error
		if node, err = member(node, token); err != nil {
			return nil, &storage.Error{Code: storage.NotFoundErr}
		}
	}
	return node, nil
}

// Commit and Abort have nothing to do.
func (notebook) Commit(context.Context, storage.Transaction) error { return nil }

// Abort has nothing to undo.
func (notebook) Abort(context.Context, storage.Transaction) {}

// Truncate is a write.
func (notebook) Truncate(context.Context, storage.Transaction, storage.TransactionParams, storage.Iterator) error {
	return &storage.Error{Code: storage.WritesNotSupportedErr}
}
