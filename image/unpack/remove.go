package unpack

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// clear removes what an earlier entry left under the name, and returns what
// that was. What was known of open directories is forgotten if it may have led
// through the name.
func (u *unpacker) clear(f folder, name string) (*unix.Stat_t, error) {
	st, err := lookup(f.fd, name)
	if err != nil || st == nil {
		return nil, err
	}
	if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFDIR || kind == unix.S_IFLNK {
		u.root.stale = true
	}
	return st, removeAll(f.fd, name)
}

// removeAll removes a name and what is below it, never following a link. It
// holds a directory open for each level, of which Limits.Depth allows few.
func removeAll(dirfd int, name string) error {
	err := unix.Unlinkat(dirfd, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	names, err := readNames(fd)
	for _, n := range names {
		if err == nil {
			err = removeAll(fd, n)
		}
	}
	_ = unix.Close(fd)
	if err != nil {
		return err
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}

// readNames lists a directory through a descriptor of its own.
func readNames(dirfd int) ([]string, error) {
	fd, err := unix.Openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}
