package store

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// memory is the tmpfs of a store in memory.
type memory struct {
	limit   Usage
	mounted bool // by this process or by one before
}

// mount mounts the tmpfs, or takes over the one that a process left which died
// with mounts, and gives it the limit.
func (m *memory) mount(dir string) error {
	there, err := tmpfsAt(dir)
	if err != nil {
		return err
	}
	options := "mode=0700"
	if m.limit.Bytes > 0 {
		options += fmt.Sprintf(",size=%d", m.limit.Bytes)
	}
	if m.limit.Inodes > 0 {
		options += fmt.Sprintf(",nr_inodes=%d", m.limit.Inodes)
	}
	flags := uintptr(unix.MS_NODEV | unix.MS_NOSUID) // nothing is run from here, but through an overlay
	if there {
		m.mounted = true
		if err := unix.Mount("", dir, "", flags|unix.MS_REMOUNT, options); err != nil {
			return fmt.Errorf("limit the memory that is in use: %w", err)
		}
		return nil
	}
	// What was decrypted must not go to a swap device (Linux 6.4).
	err = unix.Mount("vouchsafe", dir, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("vouchsafe", dir, "tmpfs", flags, options)
	}
	if err != nil {
		return fmt.Errorf("mount a file system of memory: %w", err)
	}
	m.mounted = true
	return nil
}

// unmount gives the memory back, unless another process took the store over in
// this moment.
func (m *memory) unmount(dir string) error {
	if !m.mounted {
		return nil
	}
	m.mounted = false
	err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

// tmpfsAt reports whether a tmpfs is mounted at dir itself.
func tmpfsAt(dir string) (bool, error) {
	var here, above unix.Stat_t
	var fs unix.Statfs_t
	if err := unix.Lstat(dir, &here); err != nil {
		return false, err
	}
	if err := unix.Lstat(filepath.Dir(dir), &above); err != nil {
		return false, err
	}
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, err
	}
	return here.Dev != above.Dev && fs.Type == unix.TMPFS_MAGIC, nil
}
