package unpack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// layerDir is the directory that an archive must not leave.
type layerDir struct{ fd int }

func openLayer(dir string) (*layerDir, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the layer directory: %w", err)
	}
	d := &layerDir{fd: fd}
	names, err := readNames(fd)
	if err == nil && len(names) > 0 {
		err = errors.New("the layer directory is not empty")
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *layerDir) close() { _ = unix.Close(d.fd) }

// open opens a directory of the layer. The kernel treats the layer as the root
// of every absolute link and every "..", whatever else happens meanwhile.
func (d *layerDir) open(dir string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(d.fd, dir, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// openMaking is open that makes what is missing, with mode 0755.
func (d *layerDir) openMaking(dir string) (int, error) {
	fd, err := d.open(dir)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, name := path.Split(dir)
	if name == "" || name == "." {
		return -1, err
	}
	pfd, err := d.openMaking(path.Clean("./" + parent))
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(pfd) }()
	// EEXIST: a symlink whose target is missing. Nothing is made through it.
	if err := unix.Mkdirat(pfd, name, 0o755); err != nil {
		return -1, err
	}
	if err := unix.Fchmodat(pfd, name, 0o755, 0); err != nil { // the umask must not matter
		return -1, err
	}
	return d.open(dir)
}

// parent opens the directory that p lies in, making it if need be, and returns
// the last component of p.
func (u *unpacker) parent(entry, p string) (int, string, error) {
	dir, name := path.Split(p)
	fd, err := u.root.openMaking(path.Clean("./" + dir))
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EEXIST), errors.Is(err, unix.ELOOP):
		return -1, "", refuse(entry, "its parent is not a directory: %w", err)
	case err != nil:
		return -1, "", err
	}
	return fd, name, nil
}

// lookup returns the status of a name without following it, or nil.
func lookup(dirfd int, name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// isWhiteout reports the overlay form of "deleted here". Only this package
// makes it: archives may not hold 0:0 devices.
func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// removeAll removes a name and what is below it, never following a link.
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

// procPath names an object in a directory that is open, for the system calls
// that have no form with a descriptor. The name must be a single component.
func procPath(dirfd int, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, strings.TrimPrefix(name, "/"))
}
