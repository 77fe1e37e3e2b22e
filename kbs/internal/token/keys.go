package token

import (
	"context"
	"crypto/ecdsa"
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
	"github.com/vouchsafe-cc/vouchsafe/secret"
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

// snapshot is the keys as of one version of the index.
type snapshot struct {
	version store.Version
	checked time.Time
	index   index
	keys    map[string]*key // those of the index that are accepted at all
	signer  *key
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
