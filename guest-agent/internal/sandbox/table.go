package sandbox

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// undo takes back one step. It may be called again if it fails.
type undo func(context.Context) error

// table counts who uses which storage. Storages with the same mount point are
// one storage (kata-agent 2.10). The lock is never held while one is mounted or
// unmounted: whoever wants the same one waits for that one only.
type table struct {
	mu      sync.Mutex
	entries map[string]*entry
}

type entry struct {
	key    string
	driver string
	ready  chan struct{} // closed when the attempt to make it has ended, see err
	err    error
	undo   undo

	refs int           // under the table's lock
	gone chan struct{} // under the table's lock: set while the last user's undo runs, closed after
}

// acquire adds a user of key, making the storage if there is none. What it
// returns is for release.
func (t *table) acquire(ctx context.Context, key, driver string, mk func(context.Context) (undo, error)) (*entry, error) {
	for {
		e, first, gone, err := t.join(key, driver)
		switch {
		case err != nil:
			return nil, err
		case first:
			return e, t.fill(ctx, e, mk)
		case gone != nil:
			select {
			case <-gone:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		select {
		case <-e.ready:
			return e, e.err // on failure the entry, and our reference with it, is gone
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), t.release(context.WithoutCancel(ctx), e))
		}
	}
}

// join adds a reference to the entry of key. When that one is being undone it
// returns the channel that tells its end instead.
func (t *table) join(key, driver string) (e *entry, first bool, gone <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.entries[key]
	switch {
	case !ok:
		e = &entry{key: key, driver: driver, refs: 1, ready: make(chan struct{})}
		t.entries[key] = e
		return e, true, nil, nil
	case e.gone != nil:
		return nil, false, e.gone, nil
	case e.driver != driver:
		return nil, false, nil, invalidf("storage at %q is in use with driver %q, not %q", key, e.driver, driver)
	}
	e.refs++
	return e, false, nil, nil
}

// hold adds a user to an entry that has one.
func (t *table) hold(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.refs++
}

// has says whether a storage of this driver is there.
func (t *table) has(key, driver string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[key]
	if e == nil || e.driver != driver || e.gone != nil {
		return false
	}
	select {
	case <-e.ready:
		return e.err == nil
	default:
		return false
	}
}

// below says whether a storage lies in the directory key.
func (t *table) below(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for other := range t.entries {
		if strings.HasPrefix(other, key+"/") {
			return true
		}
	}
	return false
}

var errNotMade = errors.New("the storage was not made")

// fill makes an entry. One whose making panics has failed: nobody waits for it.
func (t *table) fill(ctx context.Context, e *entry, mk func(context.Context) (undo, error)) error {
	e.err = errNotMade
	defer func() {
		if e.err != nil {
			t.mu.Lock()
			delete(t.entries, e.key)
			t.mu.Unlock()
		}
		close(e.ready)
	}()
	e.undo, e.err = mk(ctx)
	return e.err
}

// release drops one user and undoes the storage after the last. When that fails
// the user stays, for another try.
func (t *table) release(ctx context.Context, e *entry) error {
	t.mu.Lock()
	if e.refs--; e.refs > 0 || t.entries[e.key] != e {
		t.mu.Unlock()
		return nil
	}
	gone := make(chan struct{})
	e.gone = gone
	t.mu.Unlock()
	<-e.ready // its maker holds a reference until then, so this does not wait
	err := e.undo(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	defer close(gone)
	if err != nil {
		e.gone, e.refs = nil, 1
		return err
	}
	delete(t.entries, e.key)
	return nil
}
