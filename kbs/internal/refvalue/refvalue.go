// Package refvalue keeps reference values: the values that good evidence is
// expected to show, with their provenance and an expiry that is enforced.
package refvalue

import (
	"context"
	"encoding/json"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Querier answers the policies' query_reference_value (kbs-protocol 9.2).
type Querier interface {
	// Query returns nil for a name that is absent or has expired.
	Query(ctx context.Context, name string) (json.RawMessage, error)
}

// Registrar changes reference values.
type Registrar interface {
	Querier
	Get(ctx context.Context, name string) (api.RefValue, error) // store.ErrNotFound
	Put(ctx context.Context, v api.RefValue) (api.RefValue, error)
	Delete(ctx context.Context, name string) error
	List(ctx context.Context, prefix string) ([]api.RefValue, error)
}
