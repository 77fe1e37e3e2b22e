package sandbox

import (
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// beneath is an open directory. What is done with it is done below it, and on
// the mount that it lies on: whatever is mounted there, before or meanwhile, is
// not entered, changed or removed. The kernel sees to that with each step
// (openat2(2), RESOLVE_NO_XDEV), so that nothing depends on what was true a
// moment ago.
type beneath struct{ *os.File }

// errMounted says that a name leads to another mount, or out of the directory:
// the kernel has one word for both.
var errMounted = invalidf("a volume is mounted there, or a link leads away")

// Names are resolved below the directory; links are followed as far as they stay
// there.
const resolveBeneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS

// maxTries bounds how often a name is resolved anew because something was renamed
// or mounted meanwhile, anywhere on the machine.
const maxTries = 128

// open opens what a name leads to.
func (b beneath) open(name string, flags int, mode, resolve uint64) (*os.File, error) {
	if flags&unix.O_CREAT == 0 {
		mode = 0 // openat2 takes one for what is new alone
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: mode, Resolve: resolve} //nolint:gosec // flags of open(2)
	for try := 1; ; try++ {
		fd, err := unix.Openat2(int(b.Fd()), name, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && try < maxTries:
		case errors.Is(err, unix.EXDEV):
			return nil, errMounted
		default:
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// dir opens a directory to work in, following links.
func (b beneath) dir(name string) (beneath, error) {
	f, err := b.open(name, unix.O_PATH|unix.O_DIRECTORY, 0, resolveBeneath)
	return beneath{f}, err
}

// entry opens the file or directory that has this name here, and no link.
func (b beneath) entry(name string, flags int, mode uint64) (*os.File, error) {
	return b.open(name, flags|unix.O_NOFOLLOW, mode, resolveBeneath|unix.RESOLVE_NO_SYMLINKS)
}

// makeDir is dir where the directory may be absent: it and those above are made
// then. It tells whether the last one was.
func (b beneath) makeDir(name string, mode uint32) (at beneath, made bool, err error) {
	if at, err = b.dir(name); !errors.Is(err, unix.ENOENT) {
		return at, false, err
	}
	if at, err = b.dir("."); err != nil {
		return at, false, err
	}
	for end := 1; end <= len(name); end++ {
		if end < len(name) && name[end] != '/' {
			continue
		}
		next, err := b.dir(name[:end])
		if made = errors.Is(err, unix.ENOENT); made {
			next, err = at.newDir(path.Base(name[:end]), mode)
		}
		_ = at.Close()
		if err != nil {
			return beneath{}, false, err
		}
		at = next
	}
	return at, made, nil
}

// newDir makes a directory here, unless another call just has.
func (b beneath) newDir(name string, mode uint32) (beneath, error) {
	if err := unix.Mkdirat(int(b.Fd()), name, mode); err != nil && !errors.Is(err, unix.EEXIST) {
		return beneath{}, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	f, err := b.entry(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	return beneath{f}, err
}

// kind tells the type of what has this name here, 0 if nothing has.
func (b beneath) kind(name string) (uint32, error) {
	var st unix.Stat_t
	switch err := unix.Fstatat(int(b.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
		return 0, nil
	case err != nil:
		return 0, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return st.Mode & unix.S_IFMT, nil
}

// free says whether something may take this name: nothing is mounted on it.
func (b beneath) free(name string) error {
	f, err := b.entry(name, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// rename moves an entry over another one.
func (b beneath) rename(from, to string) error {
	return busy("rename", to, unix.Renameat(int(b.Fd()), from, int(b.Fd()), to))
}

// symlink makes a symbolic link.
func (b beneath) symlink(target, name string) error {
	return busy("symlink", name, unix.Symlinkat(target, int(b.Fd()), name))
}

// lchown gives an entry, and not what it may link to, to somebody.
func (b beneath) lchown(name string, uid, gid int) error {
	return busy("chown", name, unix.Fchownat(int(b.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW))
}

// maxDepth bounds how deep a tree may be that is removed: each level costs an
// open file meanwhile.
const maxDepth = 128

// removeAll removes an entry with everything in it. What is mounted in it stays,
// as do the directories above that, and is an error.
func (b beneath) removeAll(name string) error { return b.removeTree(name, maxDepth) }

func (b beneath) removeTree(name string, depth int) error {
	err := unix.Unlinkat(int(b.Fd()), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return busy("remove", name, err)
	}
	if depth == 0 {
		return invalidf("directories lie too deep to be removed")
	}
	f, err := b.entry(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, inside := range names {
		if err := (beneath{f}).removeTree(inside, depth-1); err != nil {
			return err
		}
	}
	return busy("remove", name, unix.Unlinkat(int(b.Fd()), name, unix.AT_REMOVEDIR))
}

// busy makes an error of what the kernel says of a name; EBUSY is its word for a
// name that something is mounted on.
func busy(op, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return errMounted
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}
