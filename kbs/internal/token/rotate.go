package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// PublishedFirst is how long a key is published before it may sign: what
// caches of the key set are told, and some minutes for slow ones.
const PublishedFirst = 15 * time.Minute

var (
	// ErrTooSoon says that the next key has not been published long enough.
	ErrTooSoon = fmt.Errorf("token: the next key is too young to sign: %w", store.ErrConflict)
	// ErrFile says that the keys cannot be rotated here.
	ErrFile = fmt.Errorf("token: the signing key is that of a configured signer; replace its file: %w", store.ErrConflict)
)

// Rotation says how keys are rotated.
type Rotation struct {
	By string // the subject of the audit entry
	// Version of the keys that the caller saw, store.Any for whatever is there.
	Version store.Version
	// Now does without the time of publication: parties with a cached key set
	// refuse new tokens until they look again.
	Now bool
	// Revoke drops the current and every retired key at once: all tokens that
	// are out there end. It implies Now.
	Revoke bool
}

// Rotate makes the next key the current one and publishes another next. The
// key that was current verifies until its last token has expired.
func (k *Keys) Rotate(ctx context.Context, r Rotation) error {
	if k.cfg.Signer != nil {
		return ErrFile
	}
	now := k.cfg.Now().UTC()
	made, err := k.make(ctx, now)
	if err != nil {
		return err
	}
	var gone []string
	err = k.changeAt(ctx, r.By, r.Version, func(x *index) (e api.AuditEntry, err error) {
		gone, err = x.rotate(r, made, now, k.cfg.Lifetime+grace)
		current, _ := x.of(StateCurrent)
		e = api.AuditEntry{Kind: api.AuditTokenKeyRotate, Object: "token-key/" + current.ID, Details: map[string]string{"next": made}}
		if r.Revoke {
			e.Details["revoked"] = "all keys before"
		}
		return e, err
	})
	if err != nil {
		k.forget(ctx, []string{made})
		return err
	}
	k.forget(ctx, gone)
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refresh(ctx)
}

func (k *Keys) changeAt(ctx context.Context, by string, want store.Version, edit func(x *index) (api.AuditEntry, error)) error {
	if want != store.Any {
		version, _, err := k.load(ctx)
		if err != nil {
			return err
		}
		if version != want {
			return fmt.Errorf("the token keys are at version %d: %w", version, store.ErrConflict)
		}
	}
	return k.change(ctx, by, edit)
}

// rotate edits the index and returns the keys that it no longer names.
func (x *index) rotate(r Rotation, made string, now time.Time, lifetime time.Duration) (gone []string, err error) {
	next, ok := x.of(StateNext)
	if !ok {
		return nil, errors.New("token keys: there is no next key")
	}
	if ready := next.Since.Add(PublishedFirst); !r.Now && !r.Revoke && now.Before(ready) {
		return nil, fmt.Errorf("%w: it may sign from %s on", ErrTooSoon, ready.Format(time.RFC3339))
	}
	gone = x.expire(now)
	keep := x.Keys[:0:0]
	for _, e := range x.Keys {
		switch {
		case e.State == StateNext:
			e.State, e.Since = StateCurrent, now
		case r.Revoke && e.State != StateExternal:
			gone = append(gone, e.ID)
			continue
		case e.State == StateCurrent:
			e.State, e.Since, e.Until = StateRetired, now, now.Add(lifetime)
		}
		keep = append(keep, e)
	}
	keep = append(keep, indexed{ID: made, State: StateNext, Since: now})
	x.Keys = keep
	return gone, nil
}

// expire drops the keys whose time is over and returns their ids.
func (x *index) expire(now time.Time) (gone []string) {
	keep := x.Keys[:0:0]
	for _, e := range x.Keys {
		if e.Until.IsZero() || now.Before(e.Until) {
			keep = append(keep, e)
		} else {
			gone = append(gone, e.ID)
		}
	}
	x.Keys = keep
	return gone
}

// Maintain rotates the keys when they are old enough. Every replica calls it
// now and then; one of them is the one that rotates.
func (k *Keys) Maintain(ctx context.Context) error {
	s, err := k.fresh(ctx, refreshEvery)
	if err != nil {
		return err
	}
	current, ok := s.index.of(StateCurrent)
	if k.cfg.Signer != nil || k.cfg.RotateAfter <= 0 || !ok || k.cfg.Now().Sub(current.Since) < k.cfg.RotateAfter {
		return nil
	}
	err = k.Rotate(ctx, Rotation{By: "kbs", Version: s.version})
	if errors.Is(err, store.ErrConflict) {
		return nil // another replica was first, or the next key is young
	}
	return err
}

// List returns the keys with the version of the list.
func (k *Keys) List(ctx context.Context) (api.TokenKeys, error) {
	s, err := k.fresh(ctx, 0)
	if err != nil {
		return api.TokenKeys{}, err
	}
	out := api.TokenKeys{Version: int64(s.version), Items: []api.TokenKey{}}
	for _, e := range s.index.Keys {
		item := api.TokenKey{ID: e.ID, State: string(e.State), Since: e.Since, Signs: s.signer.id == e.ID}
		if !e.Until.IsZero() {
			item.Until = &e.Until
		}
		out.Items = append(out.Items, item)
	}
	return out, nil
}
