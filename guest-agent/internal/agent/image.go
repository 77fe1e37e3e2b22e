package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// readImage reads a file that configures the agent. It has to be one of the image,
// which is measured: a regular file on the root file system, which root alone can
// write. What lies elsewhere may have come from the host.
func readImage(path string) ([]byte, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, errors.New("want a clean absolute path")
	}
	// Of links nothing is followed: what they lead to is named as it is, or not at all.
	how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, how)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }()
	// By the mount, not by the device: files of an overlay have devices of their own.
	var file, root unix.Statx_t
	const want = unix.STATX_TYPE | unix.STATX_MODE | unix.STATX_UID | unix.STATX_MNT_ID
	if err := errors.Join(unix.Statx(fd, "", unix.AT_EMPTY_PATH, want, &file), unix.Statx(unix.AT_FDCWD, "/", 0, want, &root)); err != nil {
		return nil, err
	}
	switch {
	case file.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("not a regular file")
	case file.Mask&root.Mask&unix.STATX_MNT_ID == 0 || file.Mnt_id != root.Mnt_id:
		return nil, errors.New("not on the root file system, which is what is measured")
	case file.Uid != 0 || file.Mode&0o022 != 0:
		return nil, fmt.Errorf("others than root can write it (owner %d, mode %#o)", file.Uid, file.Mode&0o777)
	}
	return readAll(f)
}
