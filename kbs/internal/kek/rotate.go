package kek

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// keyProgress is the record of the walk that follows a rotation.
const keyProgress = "kek/rewrap"

// Progress is how far the walk has come that puts what is there under the
// current key.
type Progress struct {
	To       string    `json:"to"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	Pass     int       `json:"pass"`   // the last pass is one that found nothing to do
	Looked   int       `json:"looked"` // records, in this pass
	Moved    int       `json:"moved"`  // records, in all passes
	// Failed are records that do not open under any key, at most maxFailed of
	// them by name. While there are any, no key is retired.
	Failed      []string `json:"failed,omitempty"`
	FailedCount int      `json:"failed_count,omitempty"`

	After string `json:"after,omitempty"` // the last record looked at
	Dirty bool   `json:"dirty,omitempty"` // this pass moved something, or was overtaken by a writer
}

const maxFailed = 10

// Rotate makes another key the current one: the one that is named, or else the
// first holder's newest if the store never was under it, or else one that the
// holder makes now. commit runs in the same transaction. The records follow in
// a walk, see [Walker]; until then they open under the former key.
//
// Rotating to the key that is current already only begins the walk again.
func (s *Set) Rotate(ctx context.Context, to string, commit func(tx store.Tx, from, to string) error) (State, error) {
	seen, err := s.State(ctx)
	if err != nil {
		return State{}, err
	}
	w, err := s.target(ctx, seen, to)
	if err != nil {
		return State{}, err
	}
	var next State
	err = s.st.Update(ctx, func(tx store.Tx) error {
		state, version, err := getState(tx)
		if err != nil {
			return err
		}
		if state.Current != seen.Current {
			return fmt.Errorf("another rotation was faster: %w", store.ErrConflict)
		}
		next = state.moved(w.ID(), s.now().UTC())
		if err := putState(tx, next, version); err != nil {
			return err
		}
		p := Progress{To: w.ID(), Started: s.now().UTC(), Pass: 1}
		if _, err := putProgress(tx, p, store.Any); err != nil {
			return err
		}
		return commit(tx, state.Current, w.ID())
	})
	if err != nil {
		return State{}, err
	}
	return next, s.follow(ctx, next)
}

// target finds or makes the key to rotate to, and sees that it works.
func (s *Set) target(ctx context.Context, state State, to string) (Wrapper, error) {
	w, err := s.choose(ctx, state, to)
	if err != nil {
		return nil, fmt.Errorf("the key to rotate to: %w", err)
	}
	if err := Try(ctx, w); err != nil {
		return nil, fmt.Errorf("the key to rotate to: %w", err)
	}
	return s.find(ctx, w.ID()) // and every later start will find it
}

func (s *Set) choose(ctx context.Context, state State, to string) (Wrapper, error) {
	if to != "" {
		return s.find(ctx, to)
	}
	first, err := s.holders[0].First(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(state.Keys, func(k Known) bool { return k.ID == first.ID() }) {
		return first, nil
	}
	if f, ok := s.holders[0].(Files); ok && s.shared {
		return nil, fmt.Errorf("%w: make a file beside %s, give it to every replica, and name its key", ErrShared, f)
	}
	return s.holders[0].Make(ctx)
}

// moved returns the state with another current key. A retired key may come
// back.
func (state State) moved(to string, now time.Time) State {
	if to == state.Current {
		return state
	}
	keys := slices.DeleteFunc(slices.Clone(state.Keys), func(k Known) bool { return k.ID == to })
	return State{Current: to, Keys: append(keys, Known{ID: to, Since: now})}
}

// Try sees that a key wraps, and binds what it wraps: a holder that ignores
// the bound bytes would open a record that was moved.
func Try(ctx context.Context, w Wrapper) error {
	key := secret.Random(Size)
	defer key.Destroy()
	wrapped, err := w.Wrap(ctx, key, []byte("here"))
	if err != nil {
		return err
	}
	back, err := w.Unwrap(ctx, wrapped, []byte("here"))
	if err != nil {
		return err
	}
	defer back.Destroy()
	if !back.Equal(key) {
		return fmt.Errorf("%w: %s gave back another key", ErrUnwrap, w.ID())
	}
	if moved, err := w.Unwrap(ctx, wrapped, []byte("there")); err == nil {
		moved.Destroy()
		return fmt.Errorf("%w: %s ignores where a key belongs", ErrUnwrap, w.ID())
	}
	return nil
}

// Progress reads how far the walk has come, and when somebody last worked on
// it; store.ErrNotFound if there was none.
func (s *Set) Progress(ctx context.Context) (Progress, error) { return ReadProgress(ctx, s.st) }

// ReadProgress is Progress where the keys themselves may be missing.
func ReadProgress(ctx context.Context, st store.Store) (Progress, error) {
	p, _, err := progress(ctx, st)
	return p, err
}

func progress(ctx context.Context, st store.Store) (p Progress, r store.Record, err error) {
	err = st.View(ctx, func(tx store.Tx) (err error) {
		r, err = tx.Get(keyProgress)
		return err
	})
	if err != nil {
		return p, r, err
	}
	if err := json.Unmarshal(r.Value, &p); err != nil {
		return p, r, fmt.Errorf("%w: %w", ErrState, err)
	}
	return p, r, nil
}

func putProgress(tx store.Tx, p Progress, want store.Version) (store.Version, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return 0, err
	}
	return store.Unscoped(tx).Put(keyProgress, raw, want)
}

// Rewrap implements Rewrapper.
func (s *Set) Rewrap(ctx context.Context, envelope, bound []byte) ([]byte, bool, error) {
	id, _, err := ParseEnvelope(envelope)
	if err != nil || id == s.ID() {
		return envelope, false, err
	}
	key, err := s.Unwrap(ctx, envelope, bound)
	if err != nil {
		return envelope, false, err
	}
	defer key.Destroy()
	out, err := s.Wrap(ctx, key, bound)
	return out, err == nil, err
}
