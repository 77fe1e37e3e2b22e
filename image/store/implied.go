package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

// A layer may have files in a directory that it does not describe, because a
// lower layer does: builders that copy files do so. Alone, the layer gives that
// directory mode 0755 and root as its owner, and overlayfs would show the
// topmost layer's. What an image means is the lower layer's /tmp with mode 1777.
// Layers are shared between images, so it cannot be repaired in the layer: every
// mount gets those directories once more, on top, as they should be. The root
// is always among them, for overlayfs shows that of the writable directory.

// view is the stack of a mount as overlayfs sees it.
type view struct {
	roots   []string          // of the layers, the topmost first
	implied []map[string]bool // what each does not describe
	found   map[string][]int  // the layers that have a directory, by its path
}

// describeImplied makes the directories in the mount's topmost one.
func (m *Mount) describeImplied() error {
	names := m.lowers()
	v := view{found: map[string][]int{}}
	var paths []string
	m.store.mu.Lock()
	for _, name := range names {
		described := map[string]bool{}
		if l := m.store.layers[name]; l != nil {
			paths = append(paths, l.implied...)
			for _, p := range l.implied {
				described[p] = true
			}
		}
		v.implied = append(v.implied, described)
		v.roots = append(v.roots, m.store.path(layersDir, name, fsDir))
	}
	m.store.mu.Unlock()
	slices.Sort(paths) // a directory before what lies in it
	made := []string{"."}
	root, _, err := v.source(".")
	if err != nil {
		return err
	}
	if err := copyMetadata(v.roots[root], m.path(upperDir)); err != nil {
		return err
	}
	for _, p := range slices.Compact(paths) {
		from, wrong, err := v.source(p)
		if err != nil {
			return err
		}
		if !wrong || p == "." {
			continue
		}
		more, err := v.describe(m.path(upperDir), p, from)
		if err != nil {
			return err
		}
		made = append(made, more...)
	}
	for _, p := range slices.Backward(made) { // making one changes the time of the one above
		from, _, err := v.source(p)
		if err != nil {
			return err
		}
		if err := copyTimes(filepath.Join(v.roots[from], p), filepath.Join(m.path(upperDir), p)); err != nil {
			return err
		}
	}
	return nil
}

// source returns the layer that describes a directory, and whether overlayfs
// would show it as another layer implied it. Where no layer describes it, or
// there is no directory, nothing is wrong.
func (v *view) source(p string) (layer int, wrong bool, err error) {
	spots, err := v.at(p)
	if err != nil || len(spots) == 0 {
		return 0, false, err
	}
	for i, s := range spots {
		if !v.implied[s][p] {
			return s, i > 0, nil
		}
	}
	return spots[0], false, nil
}

// at returns the layers' directories that overlayfs merges at a path, the
// topmost first. No component is followed if it is a link.
func (v *view) at(p string) ([]int, error) {
	if spots, ok := v.found[p]; ok {
		return spots, nil
	}
	if p == "." {
		var above []int
		for i := range v.roots { // cut at an opaque one already
			above = append(above, i)
		}
		v.found[p] = above
		return above, nil
	}
	above, err := v.at(filepath.Dir(p))
	if err != nil {
		return nil, err
	}
	var spots []int
	for _, s := range above {
		var st unix.Stat_t
		path := filepath.Join(v.roots[s], p)
		err := unix.Lstat(path, &st)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			break // it hides what lies below
		}
		spots = append(spots, s)
		if opaque(path) {
			break
		}
	}
	v.found[p] = spots
	return spots, nil
}

// opaqueMarks are the attributes that say so. Archives cannot bring either.
var opaqueMarks = [...]string{unpack.XattrOpaque, unpack.XattrOpaqueUser}

func opaque(dir string) bool { return opaqueBy(dir) != "" }

// opaqueBy returns the attribute by which a directory hides what lies below.
func opaqueBy(dir string) string {
	var b [1]byte
	for _, name := range opaqueMarks {
		if n, err := unix.Lgetxattr(dir, name, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return name
		}
	}
	return ""
}

// describe makes p and what lies above it below top, and returns what was new,
// the uppermost first.
func (v *view) describe(top, p string, from int) ([]string, error) {
	var made []string
	if dir := filepath.Dir(p); dir != "." {
		above, _, err := v.source(dir)
		if err != nil {
			return nil, err
		}
		if made, err = v.describe(top, dir, above); err != nil {
			return nil, err
		}
	}
	err := os.Mkdir(filepath.Join(top, p), 0o700)
	if errors.Is(err, os.ErrExist) {
		return made, nil
	}
	if err != nil {
		return nil, err
	}
	return append(made, p), copyMetadata(filepath.Join(v.roots[from], p), filepath.Join(top, p))
}

// copyMetadata gives a directory the owner, mode and attributes of another.
// Neither path has a link in it.
func copyMetadata(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	if err := unix.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	names := make([]byte, 64<<10) // the kernel's limit for a list
	n, err := unix.Llistxattr(from, names)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.") || name == unpack.XattrOpaqueUser { // overlayfs's own: this directory hides nothing
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(from, name, value)
		if err != nil {
			return err
		}
		if err := unix.Lsetxattr(to, name, value[:n], 0); err != nil {
			return err
		}
	}
	return nil
}

func copyTimes(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
