package keyring

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// sealed is one record: the key under a data key of its own, because a holder
// wraps 32 bytes and not a PEM text.
type sealed struct {
	Under   string `json:"under"` // kek.Wrapper.ID
	DataKey []byte `json:"data_key"`
	Value   []byte `json:"value"`
}

func bound(name string) []byte { return []byte("vouchsafe keyring v1\x00" + name) }

func seal(ctx context.Context, by kek.Wrapper, name string, key secret.Bytes) ([]byte, error) {
	if !nameForm.MatchString(name) || key.Len() == 0 || key.Len() > MaxKey {
		return nil, fmt.Errorf("keyring: %q cannot name a key of %d bytes", name, key.Len())
	}
	data := secret.Random(kek.Size)
	defer data.Destroy()
	wrapped, err := by.Wrap(ctx, data, bound(name))
	if err != nil {
		return nil, fmt.Errorf("keyring: wrap %s: %w", name, err)
	}
	aead, err := newAEAD(data)
	if err != nil {
		return nil, err
	}
	return json.Marshal(sealed{Under: by.ID(), DataKey: wrapped, Value: aead.Seal(nil, nil, key.Reveal(), bound(name))})
}

func open(ctx context.Context, by kek.Wrapper, name string, raw []byte) (secret.Bytes, error) {
	var s sealed
	if err := json.Unmarshal(raw, &s); err != nil {
		return secret.Bytes{}, fmt.Errorf("keyring: the record of %s is damaged: %w", name, err)
	}
	if s.Under != by.ID() {
		return secret.Bytes{}, fmt.Errorf("keyring: %s is under %s, this is %s: %w", name, s.Under, by.ID(), kek.ErrUnwrap)
	}
	data, err := by.Unwrap(ctx, s.DataKey, bound(name))
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
