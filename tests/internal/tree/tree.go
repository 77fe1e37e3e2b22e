// Package tree describes a directory inode by inode, so that what different
// programs unpacked from one image can be compared.
package tree

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An Inode is all that an image says of one name.
type Inode struct {
	Kind     string // "file", "dir", "link", "char", "block", "fifo", "deleted" (overlayfs's mark) or "socket"
	Mode     uint32 // twelve bits
	UID, GID uint32
	Modified time.Time
	Size     int64  // of files and links
	Content  string // SHA-256 of a file; target of a link
	Device   string // major:minor
	Same     string // the first name, in order, of the file that this one is a hard link of; empty without links
	Xattrs   string // name=value, quoted and sorted
}

// Tree maps paths to inodes. The directory itself is ".".
type Tree map[string]Inode

// Read describes everything below dir.
func Read(dir string) (Tree, error) {
	t, first := Tree{}, map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		i, err := inode(path, &st)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if st.Nlink > 1 && i.Kind != "dir" {
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			i.Same = first[st.Ino]
		}
		t[name] = i
		return nil
	})
	return t, err
}

func inode(path string, st *unix.Stat_t) (Inode, error) {
	i := Inode{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Modified: time.Unix(st.Mtim.Unix()).UTC()}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		i.Kind, i.Size = "file", st.Size
		i.Content, err = digest(path)
	case unix.S_IFDIR:
		i.Kind = "dir"
	case unix.S_IFLNK:
		i.Kind, i.Size = "link", st.Size
		i.Content, err = os.Readlink(path)
	case unix.S_IFIFO:
		i.Kind = "fifo"
	case unix.S_IFSOCK:
		i.Kind = "socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		i.Kind = "block"
		if st.Mode&unix.S_IFMT == unix.S_IFCHR {
			i.Kind = "char"
		}
		i.Device = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		if i.Kind == "char" && st.Rdev == 0 { // its metadata means nothing
			return Inode{Kind: "deleted"}, nil
		}
	}
	if err != nil {
		return i, err
	}
	i.Xattrs, err = xattrs(path)
	return i, err
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

func xattrs(path string) (string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var all []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("attribute %s: %w", name, err)
		}
		all = append(all, fmt.Sprintf("%s=%q", name, value[:n]))
	}
	slices.Sort(all)
	return strings.Join(all, " "), nil
}

// Diff says in which names two trees differ, and how.
func Diff(a, b Tree) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if other, ok := b[name]; !ok {
			out = append(out, fmt.Sprintf("%q: %+v, and not there", name, a[name]))
		} else if other != a[name] {
			out = append(out, fmt.Sprintf("%q:\n  %+v\n  %+v", name, a[name], other))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[name]; !ok {
			out = append(out, fmt.Sprintf("%q: not there, and %+v", name, b[name]))
		}
	}
	return out
}
