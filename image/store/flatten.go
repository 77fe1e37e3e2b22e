package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Flatten makes of the layers (the lowest first) the one directory that a mount
// of them would show, at target, which lies on the store's file system and is
// absent or an empty directory. It appears there as a whole or not at all. Files
// are moved, not copied, so nobody else may hold the layers, and they are gone
// afterwards, also after an error.
func (s *Store) Flatten(ctx context.Context, layers []*Layer, target string) (err error) {
	if s.images {
		return errors.New("layers that are kept as images cannot be made one directory")
	}
	dir, err := os.MkdirTemp(s.path(stagingDir), "flat-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, destroy(dir)) }()
	stack, err := s.takeOut(layers, dir)
	if err != nil {
		return err
	}
	// Downwards: what is above stays, and gets what it does not hide.
	top := stack[0]
	for _, lower := range stack[1:] {
		if opaque(top.dir) {
			break
		}
		if err := top.merge(ctx, lower); err != nil {
			return fmt.Errorf("flatten the layers: %w", err)
		}
	}
	if err := unmark(ctx, unix.AT_FDCWD, top.dir); err != nil {
		return fmt.Errorf("flatten the layers: %w", err)
	}
	if err := unix.Rename(top.dir, target); err != nil {
		return fmt.Errorf("put the image at %s: %w", target, err)
	}
	return nil
}

// takeOut moves the layers out of the store, into dir, and returns them with
// the topmost first. A layer that occurs twice is hidden by itself.
func (s *Store) takeOut(layers []*Layer, dir string) ([]*flat, error) {
	if len(layers) == 0 {
		return nil, errors.New("there is no layer")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, l := range slices.Backward(layers) {
		state := s.layers[l.name]
		if l.released.Load() || state == nil || state.refs != 1 {
			return nil, fmt.Errorf("layer %s is used elsewhere, or was released", l.name)
		}
		if !slices.Contains(names, l.name) {
			names = append(names, l.name)
		}
	}
	var stack []*flat
	for i, name := range names {
		to := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Rename(s.path(layersDir, name), to); err != nil {
			return nil, err
		}
		f := &flat{dir: filepath.Join(to, fsDir), implied: map[string]bool{}}
		for _, p := range s.layers[name].implied {
			f.implied[p] = true
		}
		stack = append(stack, f)
		delete(s.layers, name)
	}
	for _, l := range layers {
		l.released.Store(true)
	}
	return stack, nil
}

// A flat is a layer on its way into another.
type flat struct {
	dir     string
	implied map[string]bool // directories that it has and does not describe
}

// merge moves into f what it does not hide of the layer below.
func (f *flat) merge(ctx context.Context, below *flat) error {
	m := merging{above: f, below: below, met: map[string]bool{}}
	if err := m.directory(ctx, unix.AT_FDCWD, f.dir, unix.AT_FDCWD, below.dir, "."); err != nil {
		return err
	}
	for p := range below.implied { // it moved as it is, or is hidden and does not matter
		if !m.met[p] {
			f.implied[p] = true
		}
	}
	return nil
}

type merging struct {
	above, below *flat
	met          map[string]bool // directories that both have, by path
}

// directory merges a directory that both layers have. Its metadata is that of
// the layer which describes it.
func (m *merging) directory(ctx context.Context, upAt int, up string, lowAt int, low, p string) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	to, err := openDir(upAt, up)
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	from, err := openDir(lowAt, low)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	m.met[p] = true
	described := from
	if !m.above.implied[p] || m.below.implied[p] {
		described = to
	} else if err := copyMetadata(here(from), here(to)); err != nil {
		return err
	} else {
		delete(m.above.implied, p)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(described.Fd()), &st); err != nil {
		return err
	}
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := m.entry(ctx, to, from, n, filepath.Join(p, n)); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(int(to.Fd()), ".", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// entry moves one name up, merges it, or leaves it where it is because it is
// hidden.
func (m *merging) entry(ctx context.Context, to, from *os.File, name, p string) error {
	err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), name, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	for _, d := range []*os.File{to, from} {
		var st unix.Stat_t
		if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
	}
	if opaque(here(to) + "/" + name) {
		return nil
	}
	return m.directory(ctx, int(to.Fd()), name, int(from.Fd()), name, p)
}

// here is a path of a directory that is open, for calls that take no descriptor.
func here(d *os.File) string { return fmt.Sprintf("/proc/self/fd/%d/.", d.Fd()) }

// unmark takes the marks of deletion off a tree: nothing lies below it any more.
func unmark(ctx context.Context, at int, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d, err := openDir(at, name)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	fd := int(d.Fd())
	var own unix.Stat_t
	if err := unix.Fstat(fd, &own); err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = unmark(ctx, fd, n)
		case st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0:
			err = unix.Unlinkat(fd, n, 0)
		}
		if err != nil {
			return err
		}
	}
	if mark := opaqueBy(here(d)); mark != "" {
		if err := unix.Fremovexattr(fd, mark); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(fd, ".", []unix.Timespec{own.Atim, own.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
