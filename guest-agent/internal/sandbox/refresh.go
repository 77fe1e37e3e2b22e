package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// openedFile is a sealed file whose value was put in its place.
type openedFile struct {
	text    string // the sealed text
	linked  bool   // in a directory: the value lies beside it
	as      fs.FileInfo
	dropped bool // under the lock: its value was taken away
}

// openedFiles are those of a sandbox, by their names below the shared directory.
// The lock is held while a value is put in its place, never while a broker is
// asked.
type openedFiles struct {
	mu    sync.Mutex
	files map[string]*openedFile
}

// put places a value and remembers where it came from.
func (o *openedFiles) put(name string, f *openedFile, place func() error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := place(); err != nil {
		return err
	}
	if o.files == nil {
		o.files = map[string]*openedFile{}
	}
	o.files[name] = f
	return nil
}

// of returns the names of the opened files of a source, sorted.
func (o *openedFiles) of(source string) (names []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name := range o.files {
		if name == source || path.Dir(name) == source {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (o *openedFiles) names() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.files))
}

func (o *openedFiles) get(name string) *openedFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files[name]
}

// Unsealed reports whether a source has files that were sealed.
func (s *Sandbox) Unsealed(source string) bool { return len(s.openedOf(source)) > 0 }

// Refresh opens the sealed files of a source again, and those that the host put
// there since. A value that changed takes the place of the old one in one step,
// as Kubernetes does it: who reads sees the old one or the new one. A single file
// that is mounted by itself stays as it is, as there: the mount would not follow.
// Values that were dropped come back.
//
// All files are tried; the first failure is the error. Those that were opened are
// asked for whatever the host has put in the source's place: a container may still
// have them.
func (s *Sandbox) Refresh(source string, open func(text string) (secret.Bytes, error)) error {
	known := s.openedOf(source)
	fresh := s.withSealed(source, open, func(u unsealer, name string, dir bool) error {
		if !dir {
			return nil
		}
		return u.all(name, dir) // what is sealed there is new
	})
	return errors.Join(fresh, s.eachOpened(known, open, unsealer.refresh))
}

// HasSecret reports whether a file is one into which the value of a sealed secret is
// put: now, or when it comes back after it was dropped.
func (s *Sandbox) HasSecret(f *os.File) (bool, error) {
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	shared, err := s.root.OpenRoot(sharedDir)
	if err != nil {
		return false, fmt.Errorf("open the shared directory: %w", err)
	}
	defer func() { _ = shared.Close() }()
	for _, name := range s.opened.names() {
		for _, place := range []string{name, name + unsealedSuffix} {
			if one, err := shared.Stat(place); err == nil && os.SameFile(one, fi) {
				return true, nil
			}
		}
	}
	return false, nil
}

// openedOf returns the names of the opened files of a source.
func (s *Sandbox) openedOf(source string) []string {
	name, err := s.sharedName(source)
	if err != nil {
		return nil
	}
	return s.opened.of(name)
}

// eachOpened does something with opened files, and tries all.
func (s *Sandbox) eachOpened(names []string, open func(text string) (secret.Bytes, error), do func(u unsealer, name string) error) error {
	if len(names) == 0 {
		return nil
	}
	shared, err := s.root.OpenRoot(sharedDir)
	if err != nil {
		return fmt.Errorf("open the shared directory: %w", err)
	}
	defer func() { _ = shared.Close() }()
	var errs []error
	for _, name := range names {
		errs = append(errs, do(unsealer{root: shared, open: open, opened: &s.opened}, name))
	}
	return errors.Join(errs...)
}

func (u unsealer) refresh(name string) error {
	f := u.opened.get(name)
	value, err := u.open(f.text)
	if err != nil {
		return err
	}
	defer value.Destroy()
	return u.opened.put(name, f, func() error {
		if !f.linked && !f.dropped {
			return nil
		}
		defer func() { f.dropped = false }()
		if !f.linked {
			return u.fill(name, value.Reveal())
		}
		if u.holds(name+unsealedSuffix, value.Reveal()) {
			return nil
		}
		if to, err := u.root.Readlink(name); err != nil || to != path.Base(name)+unsealedSuffix {
			return nil //nolint:nilerr // the host has put something else there, or nothing
		}
		tmp := temporary(name)
		err := u.write(tmp, value.Reveal(), f.as)
		if err == nil {
			err = u.root.Rename(tmp, name+unsealedSuffix)
		}
		if err != nil {
			return errors.Join(err, u.root.RemoveAll(tmp))
		}
		return nil
	})
}

// holds reports whether a file has exactly a value in it.
func (u unsealer) holds(name string, value []byte) bool {
	f, err := u.regular(name, os.O_RDONLY)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	got, err := io.ReadAll(io.LimitReader(f, max(sealed.MaxSize, int64(len(value)))+1))
	defer clear(got)
	return err == nil && bytes.Equal(got, value)
}

// fill writes into a file that is mounted, whose name cannot get another one.
func (u unsealer) fill(name string, value []byte) error {
	f, err := u.regular(name, os.O_WRONLY)
	if err != nil {
		return err
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.Write(value)
	}
	return errors.Join(err, f.Close())
}

// regular opens a file, and nothing that a container or the host may have put in
// its place meanwhile: a pipe would hold who asks again for all of the pod's
// leases.
func (u unsealer) regular(name string, flags int) (*os.File, error) {
	f, err := u.root.OpenFile(name, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(invalidf("%q is no file any more", path.Base(name)), err, f.Close())
	}
	return f, nil
}

// DropUnsealed takes the values of a source's sealed files away. They come back
// with the next [Sandbox.Refresh] that is allowed them, and a container that wants
// them before does not start without.
func (s *Sandbox) DropUnsealed(source string) error {
	return s.eachOpened(s.openedOf(source), nil, func(u unsealer, file string) error {
		f := u.opened.get(file)
		return u.opened.put(file, f, func() error {
			f.dropped = true
			if !f.linked {
				return u.fill(file, nil)
			}
			if err := u.root.Remove(file + unsealedSuffix); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		})
	})
}

// restore gives back what was dropped in a source, to who is allowed it.
func (u unsealer) restore(source string) error {
	for _, name := range u.opened.of(source) {
		if u.opened.isDropped(name) {
			if err := u.refresh(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *openedFiles) isDropped(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files[name].dropped
}
