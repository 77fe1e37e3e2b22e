package boot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// newRoot is where the root is assembled before the process moves there.
const newRoot = "/sysroot"

// leaveInitramfs moves the process off the kernel's first root, on which
// pivot_root, and with it every OCI runtime, refuses to work: it has no parent
// that it could be detached from. A second mount of the same tree has one, and
// costs no copy. It is read-only: what a guest writes goes to file systems that
// say so.
//
// A root that came from a disk already is where it should be.
func leaveInitramfs(_ parameters) error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return err
	}
	if fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return nil
	}
	for _, dir := range []string{newRoot, "/proc", "/sys", "/dev", "/run", "/tmp"} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := unix.Mount("/", newRoot, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the root: %w", err)
	}
	if err := enterRoot(); err != nil {
		return err
	}
	if err := os.Remove(newRoot); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

// enterRoot makes what is mounted at newRoot the root.
func enterRoot() error {
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}
