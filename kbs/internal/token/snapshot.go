package token

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// snapshot is the keys as of one version of the index.
type snapshot struct {
	version store.Version
	checked time.Time
	index   index
	keys    map[string]*key // those of the index that are accepted at all
	signer  *key
}

// fresh returns a snapshot that is as new as it must be. One caller looks, the
// others go on with what there is.
func (k *Keys) fresh(ctx context.Context, oldest time.Duration) (*snapshot, error) {
	s := k.snap.Load()
	if k.cfg.Now().Sub(s.checked) < oldest || !k.mu.TryLock() {
		return s, nil
	}
	defer k.mu.Unlock()
	err := k.refresh(ctx)
	if err != nil && k.cfg.Now().Sub(s.checked) > stalest {
		return nil, err
	}
	if err != nil {
		k.cfg.Logger.WarnContext(ctx, "token keys were not looked up", slog.Any("error", err))
	}
	return k.snap.Load(), nil
}

// refresh makes the newest snapshot; k.mu is held.
func (k *Keys) refresh(ctx context.Context) error {
	if err := k.publishFile(ctx); err != nil {
		return err
	}
	now := k.cfg.Now()
	version, x, err := k.load(ctx)
	if err != nil {
		return err
	}
	old := k.snap.Load()
	s := &snapshot{version: version, checked: now, index: x, keys: map[string]*key{}}
	for _, e := range x.Keys {
		if old != nil && old.keys[e.ID] != nil {
			s.keys[e.ID] = old.keys[e.ID]
			continue
		}
		text, err := k.cfg.Ring.Get(ctx, nameKey+e.ID)
		if errors.Is(err, store.ErrNotFound) && e.State != StateCurrent {
			continue // dropped after the index was read
		}
		if err != nil {
			return fmt.Errorf("token key %s: %w", e.ID, err)
		}
		if s.keys[e.ID], err = openKey(text, e.ID); err != nil {
			return err
		}
	}
	if current, ok := x.of(StateCurrent); ok {
		s.signer = s.keys[current.ID]
	}
	if k.file.key != nil {
		s.signer = k.file.key
	}
	if s.signer == nil {
		return errors.New("token keys: none of them signs")
	}
	k.snap.Store(s)
	return nil
}

func openKey(text secret.Bytes, id string) (*key, error) {
	defer text.Destroy()
	opened, err := parseKey(text, "")
	if err == nil && opened.id != id {
		err = fmt.Errorf("it is %s", opened.id)
	}
	if err != nil {
		return nil, fmt.Errorf("token key %s: %w", id, err)
	}
	return opened, nil
}

// signing returns the key that signs now.
func (k *Keys) signing(ctx context.Context) (*key, error) {
	s, err := k.fresh(ctx, refreshEvery)
	if err != nil {
		return nil, err
	}
	return s.signer, nil
}

// public returns the key of this id if tokens of it are accepted now.
func (k *Keys) public(ctx context.Context, id string) (*ecdsa.PublicKey, bool, error) {
	s, err := k.fresh(ctx, refreshEvery)
	if err != nil {
		return nil, false, err
	}
	if s.keys[id] == nil { // another replica may have made it just now
		if s, err = k.fresh(ctx, refreshSoonest); err != nil {
			return nil, false, err
		}
	}
	if !s.accepts(id, k.cfg.Now()) {
		return nil, false, nil
	}
	return s.keys[id].public, true, nil
}

// accepts reports whether tokens of a key are good at a moment.
func (s *snapshot) accepts(id string, now time.Time) bool {
	if s.keys[id] == nil {
		return false
	}
	for _, e := range s.index.Keys {
		if e.ID == id {
			return e.Until.IsZero() || now.Before(e.Until)
		}
	}
	return false
}
