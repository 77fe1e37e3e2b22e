package challenge

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Period is how long one key seals. A random nonce may be drawn 2^32 times
// under one key (NIST SP 800-38D, section 8.3), which no broker reaches in an
// hour. It is also the longest life that a challenge can have.
const Period = time.Hour

// Ring keeps keys that every replica shares. See package keyring.
type Ring interface {
	// Get returns store.ErrNotFound if there is no such key.
	Get(ctx context.Context, name string) (secret.Bytes, error)
	LoadOrCreate(ctx context.Context, name string, create func() (secret.Bytes, error)) (secret.Bytes, error)
	Delete(ctx context.Context, name string) error
}

// Sealer seals and opens cookies. It is safe for concurrent use.
//
// Keys are numbered by the hour. The hour before is accepted too, because
// challenges given then are still open, and the next one, because the clocks
// of two replicas differ. The store is asked once an hour.
type Sealer struct {
	ring   Ring
	tenant string
	now    func() time.Time

	mu     sync.Mutex // held while keys are fetched
	loaded atomic.Pointer[keySet]
}

// NewSealer returns a sealer over the keys of a ring. Cookies of another tenant
// do not open, even where two tenants should share a ring.
func NewSealer(ring Ring, tenant string, now func() time.Time) *Sealer {
	return &Sealer{ring: ring, tenant: tenant, now: now}
}

// keySet is immutable.
type keySet struct {
	epoch                   int64
	previous, current, next cipher.AEAD // previous may be nil: nothing was sealed then
}

// of returns nil for an hour that is not accepted.
func (k *keySet) of(epoch int64) cipher.AEAD {
	switch epoch {
	case k.epoch - 1:
		return k.previous
	case k.epoch:
		return k.current
	case k.epoch + 1:
		return k.next
	}
	return nil
}

func keyName(epoch int64) string { return fmt.Sprintf("challenge/%d", epoch) }

func (s *Sealer) keys(ctx context.Context) (*keySet, error) {
	epoch := s.now().Unix() / int64(Period/time.Second)
	if k := s.loaded.Load(); k != nil && k.epoch == epoch {
		return k, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.loaded.Load(); k != nil && k.epoch == epoch {
		return k, nil
	}
	k, err := s.load(ctx, epoch)
	if err != nil {
		return nil, fmt.Errorf("challenge keys: %w", err)
	}
	s.loaded.Store(k)
	return k, nil
}

func (s *Sealer) load(ctx context.Context, epoch int64) (*keySet, error) {
	k := &keySet{epoch: epoch}
	for _, want := range []struct {
		epoch int64
		to    *cipher.AEAD
	}{{epoch, &k.current}, {epoch + 1, &k.next}} {
		key, err := s.ring.LoadOrCreate(ctx, keyName(want.epoch), func() (secret.Bytes, error) { return secret.Random(kek.Size), nil })
		if err != nil {
			return nil, err
		}
		if *want.to, err = newAEAD(key); err != nil {
			return nil, err
		}
	}
	switch key, err := s.ring.Get(ctx, keyName(epoch-1)); {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, err
	default:
		if k.previous, err = newAEAD(key); err != nil {
			return nil, err
		}
	}
	// What is left behind when this fails is a key that nobody accepts.
	_ = s.ring.Delete(ctx, keyName(epoch-2))
	return k, nil
}

func newAEAD(key secret.Bytes) (cipher.AEAD, error) {
	defer key.Destroy()
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// bound is the associated data of a cookie.
func (s *Sealer) bound(head []byte) []byte {
	return append([]byte("vouchsafe challenge v1\x00"+s.tenant+"\x00"), head...)
}
