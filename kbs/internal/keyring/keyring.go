// Package keyring keeps the broker's own keys in its store, sealed under the
// key-encryption key: what signs tokens and checkpoints, what seals challenges.
// Every replica over one store has the same keys and needs no file of them.
package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const prefix = "keyring/"

// MaxKey bounds one key, in bytes: a PEM text with its certificate fits.
const MaxKey = 64 << 10

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9./_-]{0,127}$`)

// Ring is the broker's keys. It is safe for concurrent use.
type Ring struct {
	st store.Store
	by kek.Wrapper
}

// Open returns the ring in st. The store may be a scope.
func Open(st store.Store, by kek.Wrapper) *Ring { return &Ring{st: st, by: by} }

// Get returns the key of this name, or store.ErrNotFound.
func (r *Ring) Get(ctx context.Context, name string) (secret.Bytes, error) {
	var rec store.Record
	err := r.st.View(ctx, func(tx store.Tx) (err error) {
		rec, err = tx.Get(prefix + name)
		return err
	})
	if err != nil {
		return secret.Bytes{}, err
	}
	return r.open(ctx, name, rec.Value)
}

// LoadOrCreate returns the key of this name, and makes it where there is none.
// Of two replicas that start at once, both get the same key.
func (r *Ring) LoadOrCreate(ctx context.Context, name string, create func() (secret.Bytes, error)) (secret.Bytes, error) {
	key, err := r.Get(ctx, name)
	if !errors.Is(err, store.ErrNotFound) {
		return key, err
	}
	if key, err = create(); err != nil {
		return secret.Bytes{}, fmt.Errorf("make key %s: %w", name, err)
	}
	switch err := r.put(ctx, name, key, store.Absent); {
	case errors.Is(err, store.ErrConflict):
		return r.Get(ctx, name) // another replica was first
	case err != nil:
		return secret.Bytes{}, err
	}
	return key, nil
}

// Put stores a key of this name, whatever was there.
func (r *Ring) Put(ctx context.Context, name string, key secret.Bytes) error {
	return r.put(ctx, name, key, store.Any)
}

func (r *Ring) put(ctx context.Context, name string, key secret.Bytes, want store.Version) error {
	return kek.Current(ctx, r.by, func() error {
		sealed, err := r.seal(ctx, name, key)
		if err != nil {
			return err
		}
		raw, err := json.Marshal(sealed)
		if err != nil {
			return err
		}
		return r.st.Update(ctx, func(tx store.Tx) error {
			if err := kek.Fence(r.by, tx, sealed.DataKey); err != nil {
				return err
			}
			_, err := tx.Put(prefix+name, raw, want)
			return err
		})
	})
}

// page is how many records List reads at once.
const page = 100

// List names the keys whose names start with start, in byte order.
func (r *Ring) List(ctx context.Context, start string) ([]string, error) {
	var names []string
	err := r.st.View(ctx, func(tx store.Tx) error {
		names = nil
		for after := ""; ; {
			records, err := tx.List(prefix+start, after, page)
			if err != nil {
				return err
			}
			for _, rec := range records {
				names = append(names, rec.Key[len(prefix):])
			}
			if len(records) < page {
				return nil
			}
			after = records[len(records)-1].Key
		}
	})
	return names, err
}

// Delete removes a key; store.ErrNotFound if there is none.
func (r *Ring) Delete(ctx context.Context, name string) error {
	return r.st.Update(ctx, func(tx store.Tx) error { return tx.Delete(prefix+name, store.Any) })
}
