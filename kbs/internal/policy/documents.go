package policy

import (
	"context"
	"strconv"

	"github.com/open-policy-agent/opa/v1/storage"
)

// documents is a read-only OPA store whose contents travel in the transaction.
//
// A resource policy reads the request as data.plugin, data["resource-path"]
// and data.query (kbs-protocol 9.1), so `data` differs with every call, while
// a prepared query is tied to one store. OPA's in-memory store would need a
// compilation, or a write transaction that holds off every other request, per
// call. Here a transaction is just a pointer to the request's documents.
type documents struct {
	storage.WritesNotSupported
	storage.TriggersNotSupported
	storage.PolicyNotSupported
}

type transaction struct{ root map[string]any }

// ID is the same for all: nothing in a read-only store tells them apart.
func (*transaction) ID() uint64 { return 1 }

// NewTransaction serves the preparation of a query, which sees no documents.
func (documents) NewTransaction(context.Context, ...storage.TransactionParams) (storage.Transaction, error) {
	return &transaction{}, nil
}

// Read returns the document at a path of the transaction.
func (documents) Read(_ context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	t, ok := txn.(*transaction)
	if !ok {
		return nil, &storage.Error{Code: storage.InvalidTransactionErr}
	}
	var node any = t.root
	if t.root == nil {
		node = map[string]any{}
	}
	for _, key := range path {
		var found bool
		switch at := node.(type) {
		case map[string]any:
			node, found = at[key]
		case []any:
			if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(at) {
				node, found = at[i], true
			}
		}
		if !found {
			return nil, &storage.Error{Code: storage.NotFoundErr}
		}
	}
	return node, nil
}

// Commit and Abort have nothing to do.
func (documents) Commit(context.Context, storage.Transaction) error { return nil }

// Abort has nothing to undo.
func (documents) Abort(context.Context, storage.Transaction) {}

// Truncate is a write.
func (documents) Truncate(context.Context, storage.Transaction, storage.TransactionParams, storage.Iterator) error {
	return &storage.Error{Code: storage.WritesNotSupportedErr}
}
