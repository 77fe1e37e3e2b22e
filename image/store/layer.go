package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
	"github.com/vouchsafe-cc/vouchsafe/image/verity"
)

// layerState is what the store knows of a complete layer.
type layerState struct {
	refs    int
	usage   Usage
	used    uint64       // when it was used last, by the store's count of uses
	root    *verity.Root // of its image, if it is kept as one and this process made it
	implied []string     // directories that the layer has but does not describe
}

// A Layer is one reference to a complete layer. The layer cannot be removed
// while it is held.
type Layer struct {
	store    *Store
	name     string
	fresh    bool
	released atomic.Bool
}

// Acquire takes a reference to a layer that is there already. It reports false
// if it is not.
func (s *Store) Acquire(k Key) (*Layer, bool, error) {
	name, err := k.name()
	if err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layers[name] == nil || !s.complete(name) {
		return nil, false, nil
	}
	s.hold(name)
	return &Layer{store: s, name: name}, true, nil
}

// hold adds a reference, and loosen takes one. The caller holds the lock.
func (s *Store) hold(name string) {
	s.uses++
	s.layers[name].refs++
	s.layers[name].used = s.uses
}

func (s *Store) loosen(name string) (unused bool) {
	s.uses++
	l := s.layers[name]
	l.refs--
	l.used = s.uses
	return l.refs == 0
}

// Dir returns the layer's directory. Nobody may write into it.
func (l *Layer) Dir() string { return l.store.path(layersDir, l.name, fsDir) }

// Usage returns what the layer occupies.
func (l *Layer) Usage() Usage {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if state := l.store.layers[l.name]; state != nil {
		return state.usage
	}
	return Usage{}
}

// Release gives the reference up. The layer stays on disk for the next image,
// until [Store.GC], the store's budget or the next [Open]. What a budget
// cannot remove now, the next collection tries again.
func (l *Layer) Release() { _ = l.drop(false) }

// Discard is Release after a failure: a layer that was committed under this
// reference, and that nobody else has come to use, goes again.
func (l *Layer) Discard() error { return l.drop(l.fresh) }

func (l *Layer) drop(remove bool) error {
	if l.released.Swap(true) {
		return nil
	}
	s := l.store
	var err error
	s.mu.Lock()
	unused := s.loosen(l.name)
	if unused && remove {
		err = s.bury(l.name)
	}
	s.mu.Unlock()
	switch {
	case !unused || err != nil:
		return err
	case remove:
		return s.sweep()
	}
	s.keepWithin()
	return nil
}

// Staging is a layer in the making. Nothing finds it before [Staging.Commit].
type Staging struct {
	store   *Store
	dir     string
	implied []string
	done    bool
}

// Stage makes an empty staging directory.
func (s *Store) Stage() (*Staging, error) {
	dir, err := os.MkdirTemp(s.path(stagingDir), "layer-")
	if err != nil {
		return nil, err
	}
	st := &Staging{store: s, dir: dir}
	if err := os.Mkdir(st.Dir(), 0o755); err != nil {
		return nil, errors.Join(err, st.Abort())
	}
	if err := os.Chmod(st.Dir(), 0o755); err != nil { // the umask must not matter: this is the image's root
		return nil, errors.Join(err, st.Abort())
	}
	return st, nil
}

// Dir is where the layer is to be unpacked.
func (st *Staging) Dir() string { return filepath.Join(st.dir, fsDir) }

// Unpack is [unpack.Apply] into the staging directory. The store keeps what
// the layer leaves to those below it.
func (st *Staging) Unpack(ctx context.Context, archive io.Reader, limits unpack.Limits) (unpack.Result, error) {
	var options []unpack.Option
	if st.store.unowned {
		options = append(options, unpack.Unowned())
	}
	res, err := unpack.Apply(ctx, archive, st.Dir(), limits, options...)
	st.implied = res.Implied
	return res, err
}

// Abort removes the staging directory. After Commit it does nothing.
func (st *Staging) Abort() error {
	if st.done {
		return nil
	}
	st.done = true
	return destroy(st.dir)
}

// Commit makes the layer visible under k. The caller vouches that everything
// that k names was verified. If the layer is there already, that one is
// returned and the staged one removed. A budget may remove others.
func (st *Staging) Commit(k Key) (*Layer, error) {
	if st.done {
		return nil, errors.New("the staging directory is gone")
	}
	name, err := k.name()
	if err != nil {
		return nil, err
	}
	state, err := st.seal()
	if err != nil {
		return nil, err
	}
	s := st.store
	fresh, err := st.publish(name, state)
	if err != nil {
		return nil, err
	}
	l := &Layer{store: s, name: name, fresh: fresh}
	if err := st.Abort(); err != nil {
		return nil, errors.Join(err, l.Discard())
	}
	s.keepWithin()
	return l, nil
}

// seal writes what belongs to the layer beside its files, and measures all.
func (st *Staging) seal() (*layerState, error) {
	if err := os.WriteFile(filepath.Join(st.dir, bootFile), st.store.boot, 0o600); err != nil {
		return nil, err
	}
	if len(st.implied) > 0 {
		list := strings.Join(st.implied, "\x00")
		if err := os.WriteFile(filepath.Join(st.dir, impliedFile), []byte(list), 0o600); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(st.dir, 0o700); err != nil {
		return nil, err
	}
	state := &layerState{implied: st.implied}
	var err error
	if st.store.images {
		// Unpacking heeded the caller's patience; this is short beside it.
		if state.root, err = st.condense(context.Background()); err != nil {
			return nil, fmt.Errorf("make the layer's image: %w", err)
		}
	}
	state.usage, err = measure(st.dir)
	return state, err
}

// publish renames the layer into place and takes a reference to it, or to the
// one that is there.
func (st *Staging) publish(name string, state *layerState) (fresh bool, err error) {
	s := st.store
	s.mu.Lock()
	defer s.mu.Unlock()
	err = unix.Renameat2(unix.AT_FDCWD, st.dir, unix.AT_FDCWD, s.path(layersDir, name), unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		st.done = true
		s.layers[name] = state
		if state.root != nil {
			if err := s.show(name, *state.root); err != nil {
				return false, errors.Join(err, s.bury(name))
			}
		}
	case !errors.Is(err, unix.EEXIST) || s.layers[name] == nil || !s.complete(name):
		return false, fmt.Errorf("commit layer %s: %w", name, err)
	}
	s.hold(name)
	return st.done, nil
}

// readLayer learns of a layer that an earlier process committed.
func (s *Store) readLayer(name string) (*layerState, error) {
	usage, err := measure(s.path(layersDir, name))
	if err != nil {
		return nil, err
	}
	l := &layerState{usage: usage}
	list, err := os.ReadFile(s.path(layersDir, name, impliedFile))
	if err == nil {
		l.implied = strings.Split(string(list), "\x00")
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return l, nil
}
