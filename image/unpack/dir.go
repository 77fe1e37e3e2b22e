package unpack

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOpen is how many directories of a layer stay open between entries.
const maxOpen = 64

// A folder is an open directory of the layer. It belongs to the layerDir and
// stays open until the next entry at least.
type folder struct {
	fd      int
	depth   int  // directories from the layer to it, whatever links the path went through
	rootGID bool // its group is 0, so whatever the file system's rules are, a new file's is too
}

// layerDir is the directory that an archive must not leave. It keeps the
// directories open that it found, by the path which the archive uses for them:
// entries of one directory follow each other. What they say of a path is true
// until a directory or a symlink is removed.
type layerDir struct {
	fd     int
	opened map[string]folder
	stale  bool
	depths map[uint64]int // of directories that were made, by inode
}

func openLayer(dir string) (*layerDir, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the layer directory: %w", err)
	}
	d := &layerDir{fd: fd, opened: map[string]folder{}, depths: map[uint64]int{}}
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

func (d *layerDir) close() {
	d.forget()
	_ = unix.Close(d.fd)
}

func (d *layerDir) forget() {
	for p, f := range d.opened {
		_ = unix.Close(f.fd)
		delete(d.opened, p)
	}
	d.stale = false
}

// tidy closes directories that the next entry must not use, or if there are
// too many. Nobody may hold a folder meanwhile.
func (d *layerDir) tidy() {
	if d.stale || len(d.opened) >= maxOpen {
		d.forget()
	}
}

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

// folder is open for a directory that is there.
func (d *layerDir) folder(dir string) (folder, error) {
	if f, ok := d.opened[dir]; ok {
		return f, nil
	}
	fd, err := d.open(dir)
	if err != nil {
		return folder{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return folder{}, err
	}
	return d.keep(dir, folder{fd, d.depths[st.Ino], st.Gid == 0}), nil
}

func (d *layerDir) keep(dir string, f folder) folder {
	if old, ok := d.opened[dir]; ok { // made anew by this entry
		_ = unix.Close(old.fd)
	}
	d.opened[dir] = f
	return f
}

// making is folder that makes what is missing, with mode 0755 and owner 0:0.
func (u *unpacker) making(dir string) (folder, error) {
	f, err := u.root.folder(dir)
	if !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	parent, name := path.Split(dir)
	if name == "" || name == "." {
		return folder{}, err
	}
	above, err := u.making(path.Clean("./" + parent))
	if err != nil {
		return folder{}, err
	}
	// EEXIST: a symlink whose target is missing. Nothing is made through it.
	if err := unix.Mkdirat(above.fd, name, 0o755); err != nil {
		return folder{}, err
	}
	if err := u.imply(dir); err != nil {
		return folder{}, err
	}
	made, err := lookup(above.fd, name)
	if err == nil {
		err = u.deeper(dir, above, made.Ino)
	}
	if err != nil {
		return folder{}, err
	}
	if !u.unowned && (!above.rootGID || !u.asRoot) {
		if err := unix.Fchownat(above.fd, name, 0, 0, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return folder{}, err
		}
	}
	if err := unix.Fchmodat(above.fd, name, 0o755, 0); err != nil { // the umask must not matter
		return folder{}, err
	}
	return u.root.folder(dir)
}

// deeper notes how deep a new directory lies. Through links a directory can be
// much deeper than its path in the archive; removing or copying such a tree would be
// somebody's trouble later.
func (u *unpacker) deeper(entry string, above folder, ino uint64) error {
	if above.depth >= u.limits.Depth {
		return refuse(entry, "the directory is deeper than %d", u.limits.Depth)
	}
	u.root.depths[ino] = above.depth + 1
	return nil
}

// parent opens the directory that p lies in, making it if need be, and returns
// the last component of p.
func (u *unpacker) parent(entry, p string) (folder, string, error) {
	dir, name := path.Split(p)
	f, err := u.making(path.Clean("./" + dir))
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EEXIST), errors.Is(err, unix.ELOOP):
		return folder{}, "", refuse(entry, "its parent is not a directory: %w", err)
	case err != nil:
		return folder{}, "", err
	}
	return f, name, nil
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

// procPath names an object in a directory that is open, for the system calls
// that have no form with a descriptor. The name must be a single component.
func procPath(dirfd int, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, strings.TrimPrefix(name, "/"))
}
