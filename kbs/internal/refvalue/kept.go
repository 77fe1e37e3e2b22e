package refvalue

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Epoch tells, within a transaction, whether any value may have changed since
// an epoch was seen: whoever keeps answers asks this instead of reading each
// again. The passing of time is no change; see QueryUntil.
func (r *Registry) Epoch(tx store.Tx) (store.Version, error) {
	record, err := tx.Get(keyEpoch)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	return record.Version, err
}

// QueryUntil is Query for those who keep the answer: within one epoch it stays
// true until the given time. A zero time means that only a change ends it.
func (r *Registry) QueryUntil(ctx context.Context, name string) (json.RawMessage, time.Time, error) {
	if !nameForm.MatchString(name) {
		return nil, time.Time{}, nil
	}
	s, _, err := r.read(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	now := r.now()
	r.usage.note(name, now)
	return s.merged(now), s.next(now), nil
}

// Used notes that a kept answer was given.
func (r *Registry) Used(name string) { r.usage.note(name, r.now()) }

// next is the first time after now at which a source begins or ends.
func (s *stored) next(now time.Time) time.Time {
	var first time.Time
	for _, o := range s.Sources {
		for _, at := range []time.Time{o.NotBefore, o.Expires} {
			if at.After(now) && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	return first
}
