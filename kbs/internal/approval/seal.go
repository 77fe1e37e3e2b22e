package approval

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// ErrSealed says that a body does not open.
var ErrSealed = errors.New("approval: the body does not open")

// Ring keeps the key that bodies are sealed under.
type Ring interface {
	LoadOrCreate(ctx context.Context, name string, create func() (secret.Bytes, error)) (secret.Bytes, error)
}

const (
	keyName = "approval/body"
	keySize = 32 // bytes
)

type sealer struct{ ring Ring }

// aead is loaded for every use: approvals are rare, and the ring knows when its
// own key has moved.
func (s *sealer) aead(ctx context.Context) (cipher.AEAD, error) {
	key, err := s.ring.LoadOrCreate(ctx, keyName, func() (secret.Bytes, error) { return secret.Random(keySize), nil })
	if err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	defer key.Destroy()
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (s *sealer) close(ctx context.Context, id string, body []byte) ([]byte, error) {
	aead, err := s.aead(ctx)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, body, bound(id)), nil
}

func (s *sealer) open(ctx context.Context, id string, sealed []byte) ([]byte, error) {
	aead, err := s.aead(ctx)
	if err != nil {
		return nil, err
	}
	body, err := aead.Open(nil, nil, sealed, bound(id))
	if err != nil {
		return nil, ErrSealed
	}
	return body, nil
}

func bound(id string) []byte { return []byte("vouchsafe approval v1\x00" + id) }
