package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

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
	if !s.complete(name) {
		return nil, false, nil
	}
	s.refs[name]++
	return &Layer{store: s, name: name}, true, nil
}

// Dir returns the layer's directory. Nobody may write into it.
func (l *Layer) Dir() string { return l.store.path(layersDir, l.name, fsDir) }

// Release gives the reference up. The layer stays on disk for the next image,
// until [Store.GC] or the next [Open].
func (l *Layer) Release() { _ = l.drop(false) }

// Discard is Release after a failure: a layer that was committed under this
// reference, and that nobody else has come to use, goes again.
func (l *Layer) Discard() error { return l.drop(l.fresh) }

func (l *Layer) drop(remove bool) error {
	if l.released.Swap(true) {
		return nil
	}
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs[l.name]--; s.refs[l.name] > 0 {
		return nil
	}
	delete(s.refs, l.name)
	if !remove {
		return nil
	}
	return s.removeLayer(l.name)
}

// Staging is a layer in the making. Nothing finds it before [Staging.Commit].
type Staging struct {
	store *Store
	dir   string
	done  bool
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

// Abort removes the staging directory. After Commit it does nothing.
func (st *Staging) Abort() error {
	if st.done {
		return nil
	}
	st.done = true
	return os.RemoveAll(st.dir)
}

// Commit makes the layer visible under k. The caller vouches that everything
// that k names was verified. If the layer is there already, that one is
// returned and the staged one removed.
func (st *Staging) Commit(k Key) (*Layer, error) {
	if st.done {
		return nil, errors.New("the staging directory is gone")
	}
	name, err := k.name()
	if err != nil {
		return nil, err
	}
	s := st.store
	if err := os.WriteFile(filepath.Join(st.dir, bootFile), s.boot, 0o600); err != nil {
		return nil, err
	}
	if err := os.Chmod(st.dir, 0o700); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	target := s.path(layersDir, name)
	err = unix.Renameat2(unix.AT_FDCWD, st.dir, unix.AT_FDCWD, target, unix.RENAME_NOREPLACE)
	fresh := err == nil
	switch {
	case fresh:
		st.done = true
	case errors.Is(err, unix.EEXIST) && s.complete(name):
		if err := st.Abort(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("commit layer %s: %w", name, err)
	}
	s.refs[name]++
	return &Layer{store: s, name: name, fresh: fresh}, nil
}
