// Package snapshot keeps in memory what a small set of records says, so that
// every request can ask and hardly any reads the store.
//
// The set has a generation: one record whose version moves with every change,
// in the change's transaction. A replica compares it at most once a second, and
// reads the set only when it has moved. So a change counts at once on the
// replica that made it, and within a second on all others.
package snapshot

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Fresh is for how long a replica believes what it knows.
const Fresh = time.Second

// Set is one set of records and what they say, a T that is never changed once
// it was read. It is safe for concurrent use.
type Set[T any] struct {
	st   store.Store
	key  string
	now  func() time.Time
	read func(store.Tx) (T, error)

	mu   sync.Mutex // held by who refreshes
	last atomic.Pointer[known[T]]
}

type known[T any] struct {
	generation store.Version
	compared   time.Time
	value      T
}

// New returns the set that read reads, whose generation is the record key.
func New[T any](st store.Store, key string, now func() time.Time, read func(store.Tx) (T, error)) *Set[T] {
	return &Set[T]{st: st, key: key, now: now, read: read}
}

// Get returns what the records say, not more than [Fresh] ago.
func (s *Set[T]) Get(ctx context.Context) (T, error) {
	if k := s.last.Load(); s.fresh(k) {
		return k.value, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.last.Load()
	if s.fresh(old) {
		return old.value, nil // somebody was faster
	}
	k, err := s.refresh(ctx, old)
	if err != nil {
		var none T
		return none, err
	}
	s.last.Store(k)
	return k.value, nil
}

func (s *Set[T]) fresh(k *known[T]) bool {
	if k == nil {
		return false
	}
	age := s.now().Sub(k.compared)
	return age >= 0 && age < Fresh
}

func (s *Set[T]) refresh(ctx context.Context, old *known[T]) (*known[T], error) {
	k := &known[T]{compared: s.now()}
	err := s.st.View(ctx, func(tx store.Tx) error {
		g, err := tx.Get(s.key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		k.generation = g.Version
		if old != nil && old.generation == g.Version {
			k.value = old.value
			return nil
		}
		k.value, err = s.read(tx)
		return err
	})
	return k, err
}

// Update changes the set in one transaction of the whole store and moves its
// generation. The next Get on this replica sees the change.
func (s *Set[T]) Update(ctx context.Context, f func(store.Tx) error) error {
	err := s.st.Update(ctx, func(tx store.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		_, err := tx.Put(s.key, []byte("moved"), store.Any)
		return err
	})
	s.mu.Lock() // a refresh that began before the change must not outlive it
	defer s.mu.Unlock()
	s.last.Store(nil)
	return err
}
