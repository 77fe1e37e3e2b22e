package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Store returns st with its transactions timed.
func (m *Metrics) Store(st store.Store) store.Store { return timed{st, m} }

type timed struct {
	store.Store
	m *Metrics
}

func (t timed) View(ctx context.Context, f func(store.Tx) error) error {
	return t.time("view", func() error { return t.Store.View(ctx, f) })
}

func (t timed) Update(ctx context.Context, f func(store.Tx) error) error {
	return t.time("update", func() error { return t.Store.Update(ctx, f) })
}

func (t timed) time(operation string, do func() error) error {
	start := time.Now()
	err := do()
	t.m.store.WithLabelValues(operation).Observe(time.Since(start).Seconds())
	if errors.Is(err, store.ErrUnavailable) {
		t.m.storeBad.WithLabelValues(operation).Inc()
	}
	return err
}
