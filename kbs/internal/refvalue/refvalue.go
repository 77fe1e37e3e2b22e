// Package refvalue keeps reference values: the values that good evidence is
// expected to show, with their provenance and an expiry that is enforced.
//
// A value is any JSON but null, and is kept byte for byte: a policy that
// compares the number 1 with the string "1" must see what was registered.
package refvalue

import (
	"context"
	"encoding/json"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Querier answers the policies' query_reference_value (kbs-protocol 9.2).
type Querier interface {
	// Query returns nil for a name that is absent or has expired.
	Query(ctx context.Context, name string) (json.RawMessage, error)
}

// Registrar changes reference values.
type Registrar interface {
	Querier
	// Get returns the value even if it has expired; store.ErrNotFound if it is
	// absent.
	Get(ctx context.Context, name string) (api.RefValue, error)
	// Put stores v if the registered one is at v.Version (0: there must be
	// none, -1: whatever is there), else store.ErrConflict. A zero Expires
	// means DefaultLifetime from now. It returns what was stored.
	Put(ctx context.Context, v api.RefValue) (api.RefValue, error)
	// Delete returns store.ErrNotFound if the value is absent.
	Delete(ctx context.Context, name string) error
	// List returns all values whose name starts with prefix, by name, expired
	// ones among them.
	List(ctx context.Context, prefix string) ([]api.RefValue, error)
}

// Transactional is what a Registrar may also be: a change can then be made
// durable together with its audit entry.
type Transactional interface {
	PutTx(tx store.Tx, v api.RefValue) (api.RefValue, error)
	DeleteTx(tx store.Tx, name string, want store.Version) error
}
