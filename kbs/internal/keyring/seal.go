package keyring

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// sealed is one record: the key under a data key of its own, because a holder
// wraps 32 bytes and not a PEM text.
type sealed struct {
	DataKey []byte `json:"data_key"` // wrapped
	Value   []byte `json:"value"`
}

func bound(name string) []byte { return []byte("vouchsafe keyring v1\x00" + name) }

func (r *Ring) seal(ctx context.Context, name string, key secret.Bytes) (sealed, error) {
	if !nameForm.MatchString(name) || key.Len() == 0 || key.Len() > MaxKey {
		return sealed{}, fmt.Errorf("keyring: %q cannot name a key of %d bytes", name, key.Len())
	}
	data := secret.Random(kek.Size)
	defer data.Destroy()
	wrapped, err := r.by.Wrap(ctx, data, bound(name))
	if err != nil {
		return sealed{}, fmt.Errorf("keyring: wrap %s: %w", name, err)
	}
	aead, err := newAEAD(data)
	if err != nil {
		return sealed{}, err
	}
	return sealed{DataKey: wrapped, Value: aead.Seal(nil, nil, key.Reveal(), bound(name))}, nil
}

func (r *Ring) open(ctx context.Context, name string, raw []byte) (secret.Bytes, error) {
	s, err := parse(raw)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("keyring: %s: %w", name, err)
	}
	data, err := r.by.Unwrap(ctx, s.DataKey, bound(name))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("keyring: %s: %w", name, err)
	}
	defer data.Destroy()
	aead, err := newAEAD(data)
	if err != nil {
		return secret.Bytes{}, err
	}
	value, err := aead.Open(nil, nil, s.Value, bound(name))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("keyring: %s: %w", name, kek.ErrUnwrap)
	}
	return secret.New(value), nil
}

func parse(raw []byte) (sealed, error) {
	var s sealed
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("%w: the record is damaged: %w", kek.ErrUnwrap, err)
	}
	return s, nil
}

// Records are the ring's records, for the walk to another master key.
type Records struct{}

var _ kek.Room = Records{}

// Prefix implements kek.Room.
func (Records) Prefix() string { return prefix }

// Rewrap implements kek.Room.
func (Records) Rewrap(ctx context.Context, keys kek.Rewrapper, r store.Record) ([]byte, bool, error) {
	s, err := parse(r.Value)
	if err != nil {
		return nil, false, err
	}
	var changed bool
	s.DataKey, changed, err = keys.Rewrap(ctx, s.DataKey, bound(r.Key[len(prefix):]))
	if err != nil || !changed {
		return nil, false, err
	}
	raw, err := json.Marshal(s)
	return raw, true, err
}

func newAEAD(key secret.Bytes) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return aead, nil
}
