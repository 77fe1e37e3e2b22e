package policy

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Kept is what References may also be. Then values are kept, parsed, for as
// long as their epoch lasts, and an evaluation reads none from the store,
// however many there are.
type Kept interface {
	// Epoch changes with every change of any value.
	Epoch(tx store.Tx) (store.Version, error)
	// QueryUntil is Query with the time until which the answer holds within
	// the epoch; zero: as long as the epoch.
	QueryUntil(ctx context.Context, name string) (json.RawMessage, time.Time, error)
	// Used notes that a kept answer was given.
	Used(name string)
}

// maxValues bounds the values that are kept. More are read each time.
const maxValues = 4096

// values are reference values of one epoch, as far as anybody asked.
type values struct {
	epoch store.Version
	from  Kept
	now   func() time.Time

	mu     sync.RWMutex
	byName map[string]value
}

// value is a parsed reference value; the zero one is absent.
type value struct {
	raw   json.RawMessage
	term  ast.Value
	until time.Time // zero: as long as the epoch
}

func newValues(epoch store.Version, from Kept, now func() time.Time) *values {
	return &values{epoch: epoch, from: from, now: now, byName: map[string]value{}}
}

// Query implements refvalue.Querier.
func (v *values) Query(ctx context.Context, name string) (json.RawMessage, error) {
	got, err := v.get(ctx, name)
	return got.raw, err
}

// get returns the value of a name, or the zero one.
func (v *values) get(ctx context.Context, name string) (value, error) {
	v.mu.RLock()
	got, known := v.byName[name]
	v.mu.RUnlock()
	if known && (got.until.IsZero() || v.now().Before(got.until)) {
		if got.raw != nil {
			v.from.Used(name)
		}
		return got, nil
	}
	raw, until, err := v.from.QueryUntil(ctx, name)
	if err != nil {
		return value{}, err
	}
	if got, err = parseValue(raw); err != nil {
		return value{}, err
	}
	got.until = until
	v.mu.Lock()
	defer v.mu.Unlock()
	if known || len(v.byName) < maxValues {
		v.byName[name] = got
	}
	return got, nil
}

func parseValue(raw json.RawMessage) (value, error) {
	if raw == nil {
		return value{}, nil
	}
	in, err := ParseInput(raw)
	return value{raw: raw, term: in.value}, err
}
