package store

import (
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// destroy removes a directory with everything in it. What a container wrote may
// resist: trees deeper than descriptors last, files marked immutable.
func destroy(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	top, err := openDir(unix.AT_FDCWD, dir)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = top.Close() }()
	unprotect(int(top.Fd()))
	d := demolition{top: int(top.Fd())}
	for {
		again, err := d.level(dir)
		if err != nil {
			return err
		}
		if !again {
			return unix.Rmdir(dir)
		}
	}
}

// demolition takes a tree down by moving what lies below its directories to
// the top, so that it never holds more than two of them open.
type demolition struct {
	top   int
	moved int
}

// level empties and removes the directories that lie at the top, and reports
// whether there were any.
func (d *demolition) level(dir string) (bool, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, n := range names {
		if err := d.remove(d.top, n.Name()); err != nil {
			return false, err
		}
	}
	return len(names) > 0, nil
}

// remove removes one name of a directory that is open. Of a directory, it moves
// the directories inside to the top.
func (d *demolition) remove(at int, name string) error {
	err := unlink(at, name)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	sub, err := openDir(at, name)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Close() }()
	fd := int(sub.Fd())
	unprotect(fd)
	names, err := sub.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, n := range names {
		err := unlink(fd, n)
		if errors.Is(err, unix.EISDIR) {
			err = d.lift(fd, n)
		}
		if err != nil {
			return err
		}
	}
	return unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
}

// lift moves a directory to the top under a name that is free there.
func (d *demolition) lift(at int, name string) error {
	if sub, err := openDir(at, name); err == nil {
		unprotect(int(sub.Fd()))
		_ = sub.Close()
	}
	for {
		d.moved++
		err := unix.Renameat2(at, name, d.top, "lifted-"+strconv.Itoa(d.moved), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
}

// unlink removes a file, if need be one that is marked immutable. Of a directory
// it says EISDIR.
func unlink(at int, name string) error {
	err := unix.Unlinkat(at, name, 0)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, oerr := unix.Openat(at, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if oerr != nil {
		return err
	}
	unprotect(fd)
	_ = unix.Close(fd)
	return unix.Unlinkat(at, name, 0)
}

// unprotect takes off what a privileged container may have put on (chattr +i,
// +a). Where there is no such thing, the removal itself fails or does not.
func unprotect(fd int) {
	const immutable, appendOnly = 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && flags&(immutable|appendOnly) != 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^(immutable|appendOnly))
	}
}
