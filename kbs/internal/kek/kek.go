// Package kek holds the key-encryption keys that all else in the broker is
// sealed under: the data key of every resource, and the broker's own keys.
//
// A key-encryption key never leaves its holder: a file's holder is this
// process, a token's or a Vault's is not. What is wrapped is always a key of
// 32 bytes or a little more, never a value.
package kek

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Size of a local key and of the keys that are wrapped, in bytes.
const Size = 32

// MaxWrapped bounds what any holder may return from Wrap, in bytes.
const MaxWrapped = 4 << 10

// ErrUnwrap says that wrapped bytes do not open: they were altered, moved to
// another place, or are under another key.
var ErrUnwrap = errors.New("kek: the wrapped key does not open")

// ErrUnavailable says that a key's holder gives no answer now, and may later.
var ErrUnavailable = errors.New("kek: the holder of the key is not available")

// Wrapper wraps keys under one key-encryption key. It is safe for concurrent
// use.
type Wrapper interface {
	// ID names the key, 1 to 64 of [A-Za-z0-9:._-], the same for as long as
	// what it wrapped opens. It says nothing about the key itself.
	ID() string
	// Wrap seals key; bound is not stored, and must be given again to Unwrap.
	Wrap(ctx context.Context, key secret.Bytes, bound []byte) ([]byte, error)
	// Unwrap returns an error that wraps ErrUnwrap if the bytes are not what
	// Wrap made with the same bound, and another if the holder did not answer.
	Unwrap(ctx context.Context, wrapped, bound []byte) (secret.Bytes, error)
}

// Local is a key that this process holds. A wrapped key is a random 96-bit
// nonce, AES-256-GCM, and the tag; one key seals at most 2^32 times (NIST SP
// 800-38D section 8.3).
type Local struct {
	id   string
	aead cipher.AEAD
}

// NewLocal derives a wrapper from 32 bytes of key material.
func NewLocal(key secret.Bytes) (*Local, error) {
	if key.Len() != Size {
		return nil, fmt.Errorf("kek: the key has %d bytes, want %d", key.Len(), Size)
	}
	id, err := hkdf.Key(sha256.New, key.Reveal(), nil, "vouchsafe kek id v1", 8)
	if err != nil {
		return nil, fmt.Errorf("kek: %w", err)
	}
	raw, err := hkdf.Key(sha256.New, key.Reveal(), nil, "vouchsafe kek wrapping v1", Size)
	if err != nil {
		return nil, fmt.Errorf("kek: %w", err)
	}
	defer clear(raw)
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("kek: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("kek: %w", err)
	}
	return &Local{id: localPrefix + hex.EncodeToString(id), aead: aead}, nil
}

// ID is derived from the key, one way.
func (l *Local) ID() string { return l.id }

// Wrap implements Wrapper.
func (l *Local) Wrap(_ context.Context, key secret.Bytes, bound []byte) ([]byte, error) {
	return l.aead.Seal(nil, nil, key.Reveal(), bound), nil
}

// Unwrap implements Wrapper.
func (l *Local) Unwrap(_ context.Context, wrapped, bound []byte) (secret.Bytes, error) {
	raw, err := l.aead.Open(nil, nil, wrapped, bound)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: under %s", ErrUnwrap, l.id)
	}
	return secret.New(raw), nil
}
