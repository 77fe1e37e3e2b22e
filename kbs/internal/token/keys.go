package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

const (
	indexKey = "token-keys" // the record that says which keys there are
	nameKey  = "token/"     // of a key in the ring, before its id

	// refreshEvery is how old a replica's view of the keys may be before it
	// looks again, and refreshSoonest how often a token under an unknown key
	// may make it look.
	refreshEvery   = 5 * time.Second
	refreshSoonest = time.Second
	// grace is added to the life of what a key signed: the leeway of verifiers
	// and the time in which a replica may still sign with the key before.
	grace = leeway + time.Minute
	// stalest is how long a replica goes on signing when it cannot look.
	stalest = time.Minute
)

// State says what a key is for.
type State string

// The states. A key is published from the moment it is next, so a verifier
// that looks now and then has every key before the first token of it.
const (
	StateNext     State = "next"     // will sign after the next rotation
	StateCurrent  State = "current"  // signs
	StateRetired  State = "retired"  // verifies until its last token has expired
	StateExternal State = "external" // of a configured signer; verifies until its lease ends
)

// index is the stored record. It names keys and holds none: each is sealed in
// the ring, so that who can only write to the store cannot add one.
type index struct {
	Keys []indexed `json:"keys"`
}

type indexed struct {
	ID    string    `json:"id"`
	State State     `json:"state"`
	Since time.Time `json:"since"`          // when it got this state
	Until time.Time `json:"until,omitzero"` // of a retired or external key: accepted before then
}

func (x index) of(s State) (indexed, bool) {
	for _, e := range x.Keys {
		if e.State == s {
			return e, true
		}
	}
	return indexed{}, false
}

// Recorder is the part of the audit log that a change of keys needs.
type Recorder interface {
	AppendTx(tx store.Tx, e api.AuditEntry) (api.AuditEntry, error)
}

// KeysConfig joins what the keys need. All members but Signer and RotateAfter
// are required.
type KeysConfig struct {
	Store    store.Store // the tenant's
	Ring     *keyring.Ring
	Audit    Recorder
	Signer   *Signer       // nil: the broker makes its own keys
	Lifetime time.Duration // of the longest-lived token
	// RotateAfter is the age at which the current key gives way to the next;
	// 0 means that only an administrator rotates.
	RotateAfter time.Duration
	Now         func() time.Time
	Logger      *slog.Logger
}

// Keys are the keys that tokens are signed with, the same for every replica
// over one store. It is safe for concurrent use.
//
// A replica works on an immutable snapshot. Every few seconds one of its
// requests reads the index, a single record, and builds another snapshot if
// the version has moved.
type Keys struct {
	cfg       KeysConfig
	authority *authority
	file      fileKey

	mu   sync.Mutex // of who refreshes
	snap atomic.Pointer[snapshot]
}

// OpenKeys returns the keys in the store and makes the first two where there
// are none.
func OpenKeys(ctx context.Context, cfg KeysConfig) (*Keys, error) {
	k := &Keys{cfg: cfg}
	var err error
	if k.authority, err = openAuthority(ctx, cfg.Ring, cfg.Now()); err != nil {
		return nil, err
	}
	if cfg.Signer == nil {
		if err := k.first(ctx); err != nil {
			return nil, err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k, k.refresh(ctx)
}

// first makes a current and a next key. Of two replicas that start at once one
// is first, and the other takes its keys.
func (k *Keys) first(ctx context.Context) error {
	_, x, err := k.load(ctx)
	if err != nil {
		return err
	}
	if _, ok := x.of(StateCurrent); ok {
		return nil
	}
	now := k.cfg.Now().UTC()
	ids := make([]string, 2)
	for i := range ids {
		if ids[i], err = k.make(ctx, now); err != nil {
			return err
		}
	}
	err = k.change(ctx, "kbs", func(x *index) (api.AuditEntry, error) {
		if _, ok := x.of(StateCurrent); ok {
			return api.AuditEntry{}, store.ErrConflict
		}
		x.Keys = append(x.Keys, indexed{ID: ids[0], State: StateCurrent, Since: now}, indexed{ID: ids[1], State: StateNext, Since: now})
		return api.AuditEntry{Kind: api.AuditTokenKeyCreate, Object: "token-key/" + ids[0]}, nil
	})
	if err != nil {
		k.forget(ctx, ids)
	}
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

// make puts a new key into the ring and returns its id.
func (k *Keys) make(ctx context.Context, now time.Time) (string, error) {
	made, err := k.authority.make(now)
	if err != nil {
		return "", err
	}
	return made.id, k.seal(ctx, made)
}

func (k *Keys) seal(ctx context.Context, made *key) error {
	text, err := made.marshal()
	if err != nil {
		return err
	}
	defer text.Destroy()
	return k.cfg.Ring.Put(ctx, nameKey+made.id, text)
}

// forget removes keys from the ring that the index no longer names. One that
// stays behind is sealed and named by nothing.
func (k *Keys) forget(ctx context.Context, ids []string) {
	for _, id := range ids {
		if err := k.cfg.Ring.Delete(context.WithoutCancel(ctx), nameKey+id); err != nil && !errors.Is(err, store.ErrNotFound) {
			k.cfg.Logger.WarnContext(ctx, "a token key was not removed", slog.String("key", id), slog.Any("error", err))
		}
	}
}

// change edits the index in one transaction with the audit entry that edit
// returns; an entry without a kind is not recorded.
func (k *Keys) change(ctx context.Context, by string, edit func(x *index) (api.AuditEntry, error)) error {
	return k.cfg.Store.Update(ctx, func(tx store.Tx) error {
		version, x, err := loadIndex(tx)
		if err != nil {
			return err
		}
		e, err := edit(&x)
		if err != nil {
			return err
		}
		raw, err := json.Marshal(x)
		if err != nil {
			return fmt.Errorf("token keys: %w", err)
		}
		if _, err := tx.Put(indexKey, raw, version); err != nil {
			return err
		}
		if e.Kind == "" {
			return nil
		}
		e.Decision, e.Subject = "change", by
		if _, err := k.cfg.Audit.AppendTx(tx, e); err != nil {
			return fmt.Errorf("append audit entry: %w", err)
		}
		return nil
	})
}

func (k *Keys) load(ctx context.Context) (version store.Version, x index, err error) {
	err = k.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		version, x, err = loadIndex(tx)
		return err
	})
	return version, x, err
}

func loadIndex(tx store.Tx) (store.Version, index, error) {
	r, err := tx.Get(indexKey)
	if errors.Is(err, store.ErrNotFound) {
		return store.Absent, index{}, nil
	}
	var x index
	if err == nil {
		err = json.Unmarshal(r.Value, &x)
	}
	if err != nil {
		return 0, index{}, fmt.Errorf("token keys: %w", err)
	}
	return r.Version, x, nil
}
