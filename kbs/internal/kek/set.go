package kek

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

var (
	// ErrUnknown says that a holder has no key of this id.
	ErrUnknown = errors.New("kek: no holder has this key")
	// ErrRotated says that a key was wrapped under a master key that another
	// one has replaced meanwhile. Whoever wraps again succeeds.
	ErrRotated = errors.New("kek: the master key was rotated meanwhile")
	// ErrShared says that a rotation has to name a key, because other replicas
	// need it too.
	ErrShared = errors.New("kek: the key to rotate to must be named")
	// ErrState says that the store's own record of the master keys is damaged.
	ErrState = errors.New("kek: the record of the master keys is damaged")
)

// Holder is where key-encryption keys live, and where new ones are made.
type Holder interface {
	// First returns the key that a store which has none yet begins with. A
	// holder whose keys are made elsewhere returns the newest.
	First(ctx context.Context) (Wrapper, error)
	// Open returns the key of an id, or ErrUnknown.
	Open(ctx context.Context, id string) (Wrapper, error)
	// Make makes a new key.
	Make(ctx context.Context) (Wrapper, error)
}

// keyState is where the store remembers which keys it is under. It lies
// outside all scopes: tenants share the master key, and a tenant's name is
// bound into what it wraps.
const keyState = "kek/state"

// State is what the store knows of its master keys. It is the word that all
// replicas go by.
type State struct {
	Current string  `json:"current"`
	Keys    []Known `json:"keys"` // oldest first, the current one last
}

// Known is one key that the store is or was under.
type Known struct {
	ID    string    `json:"id"`
	Since time.Time `json:"since"`
	// Retired is when it was found that nothing is under the key any more.
	Retired time.Time `json:"retired,omitzero"`
}

// Set is the keys that a broker knows: one for new values, and the others for
// what is still under them. It is a Wrapper whose output says which key it is
// under, and is safe for concurrent use.
//
// Which key is the current one stands in the store. A replica that has not
// heard of a rotation may wrap under the former key, but cannot store what it
// wrapped: every writer asks Fence within its transaction. So once a rotation
// is committed nothing new comes under the former key, and one walk over the
// records suffices to empty it.
type Set struct {
	st      store.Store
	holders []Holder
	now     func() time.Time
	shared  bool

	mu      sync.RWMutex
	current Wrapper
	known   map[string]Wrapper
}

var _ Wrapper = (*Set)(nil)

// OpenSet returns the keys that the store is under. A store without any gets
// the first holder's first key. Every key that is not retired must be with one
// of the holders: else values would turn out to be unreadable one by one.
func OpenSet(ctx context.Context, st store.Store, now func() time.Time, holders ...Holder) (*Set, error) {
	s := &Set{st: st, holders: holders, now: now, known: map[string]Wrapper{}}
	state, err := s.State(ctx)
	if errors.Is(err, store.ErrNotFound) {
		state, err = s.begin(ctx)
	}
	if err != nil {
		return nil, err
	}
	for _, k := range state.Keys {
		if !k.Retired.IsZero() {
			continue
		}
		if _, err := s.find(ctx, k.ID); err != nil {
			return nil, fmt.Errorf("the store is under the master key %s: %w", k.ID, err)
		}
	}
	return s, s.follow(ctx, state)
}

// Share says that other replicas use the store too, each with files of its own:
// then Rotate makes no key file that they would lack. Call it before Rotate.
func (s *Set) Share() { s.shared = true }

// begin names the first key of a new store. Of two replicas one is first, and
// the other one follows.
func (s *Set) begin(ctx context.Context) (State, error) {
	first, err := s.holders[0].First(ctx)
	if err != nil {
		return State{}, err
	}
	state := State{Current: first.ID(), Keys: []Known{{ID: first.ID(), Since: s.now().UTC()}}}
	err = s.st.Update(ctx, func(tx store.Tx) error { return putState(tx, state, store.Absent) })
	if errors.Is(err, store.ErrConflict) {
		return s.State(ctx)
	}
	return state, err
}

// State reads what the store knows; store.ErrNotFound if that is nothing.
func (s *Set) State(ctx context.Context) (State, error) { return ReadState(ctx, s.st) }

// ReadState is State where the keys themselves may be missing.
func ReadState(ctx context.Context, st store.Store) (State, error) {
	var state State
	err := st.View(ctx, func(tx store.Tx) (err error) {
		state, _, err = getState(tx)
		return err
	})
	return state, err
}

func getState(tx store.Tx) (State, store.Version, error) {
	r, err := store.Unscoped(tx).Get(keyState)
	if err != nil {
		return State{}, 0, err
	}
	var state State
	if err := json.Unmarshal(r.Value, &state); err != nil {
		return State{}, 0, fmt.Errorf("%w: %w", ErrState, err)
	}
	if !slices.ContainsFunc(state.Keys, func(k Known) bool { return k.ID == state.Current && k.Retired.IsZero() }) {
		return State{}, 0, ErrState
	}
	return state, r.Version, nil
}

func putState(tx store.Tx, state State, want store.Version) error {
	raw, err := json.Marshal(state)
	if err != nil {
		return err
	}
	_, err = store.Unscoped(tx).Put(keyState, raw, want)
	return err
}

// follow makes the store's current key ours.
func (s *Set) follow(ctx context.Context, state State) error {
	w, err := s.find(ctx, state.Current)
	if err != nil {
		return fmt.Errorf("the store is under the master key %s: %w", state.Current, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = w
	return nil
}

// find returns the key of an id, asking the holders once.
func (s *Set) find(ctx context.Context, id string) (Wrapper, error) {
	s.mu.RLock()
	w, ok := s.known[id]
	s.mu.RUnlock()
	if ok {
		return w, nil
	}
	for _, h := range s.holders {
		w, err := h.Open(ctx, id)
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.known[id] = w
		return w, nil
	}
	return nil, ErrUnknown
}

func (s *Set) active() Wrapper {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.current
}

// ID is that of the current key.
func (s *Set) ID() string { return s.active().ID() }

// Wrap seals key under the current key.
func (s *Set) Wrap(ctx context.Context, key secret.Bytes, bound []byte) ([]byte, error) {
	w := s.active()
	wrapped, err := w.Wrap(ctx, key, bound)
	if err != nil {
		return nil, err
	}
	return envelop(w.ID(), wrapped)
}

// Unwrap opens what any of the keys wrapped.
func (s *Set) Unwrap(ctx context.Context, envelope, bound []byte) (secret.Bytes, error) {
	id, wrapped, err := ParseEnvelope(envelope)
	if err != nil {
		return secret.Bytes{}, err
	}
	w, err := s.find(ctx, id)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("the master key %s: %w", id, err)
	}
	return w.Unwrap(ctx, wrapped, bound)
}

// Fenced is what a Wrapper may also be, if the key that it wraps with can be
// replaced by another.
type Fenced interface {
	// Fence returns ErrRotated unless the wrapped bytes are under the current
	// key. It reads the store within tx, so that no rotation can come between.
	Fence(tx store.Tx, wrapped []byte) error
	// Catch learns of the rotation behind an ErrRotated.
	Catch(ctx context.Context) error
}

var _ Fenced = (*Set)(nil)

// Fence implements Fenced.
func (s *Set) Fence(tx store.Tx, envelope []byte) error {
	id, _, err := ParseEnvelope(envelope)
	if err != nil {
		return err
	}
	state, _, err := getState(tx)
	if err != nil {
		return err
	}
	if id != state.Current {
		return ErrRotated
	}
	return nil
}

// Catch implements Fenced.
func (s *Set) Catch(ctx context.Context) error {
	state, err := s.State(ctx)
	if err != nil {
		return err
	}
	return s.follow(ctx, state)
}

// Fence asks w, if it is Fenced, whether the wrapped bytes may still be stored.
func Fence(w Wrapper, tx store.Tx, wrapped []byte) error {
	if f, ok := w.(Fenced); ok {
		return f.Fence(tx, wrapped)
	}
	return nil
}

// attempts bounds how often Current tries again; two rotations within one
// write do not happen to anyone.
const attempts = 3

// Current runs write, which wraps under w and stores the result, and runs it
// again if a rotation came between the two.
func Current(ctx context.Context, w Wrapper, write func() error) error {
	for i := 1; ; i++ {
		err := write()
		f, ok := w.(Fenced)
		if !errors.Is(err, ErrRotated) || !ok || i == attempts {
			return err
		}
		if err := f.Catch(ctx); err != nil {
			return err
		}
	}
}
