package unpack

import (
	"archive/tar"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// times are what an archive says of when a file was read and written. Archives
// seldom have the first.
type times struct{ access, modified time.Time }

func timesOf(hdr *tar.Header) times {
	if hdr.AccessTime.IsZero() {
		return times{hdr.ModTime, hdr.ModTime}
	}
	return times{hdr.AccessTime, hdr.ModTime}
}

// set gives the times to a name of an open directory, following no link.
func (t times) set(dirfd int, name string) error {
	return unix.UtimesNanoAt(dirfd, name, []unix.Timespec{spec(t.access), spec(t.modified)}, unix.AT_SYMLINK_NOFOLLOW)
}

// setOpen gives the times to an open file.
func (t times) setOpen(fd int) error {
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{spec(t.access), spec(t.modified)}, unix.AT_EMPTY_PATH)
}

func spec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// dirTimes are those of a directory, which are set last because entries made
// inside change them. The path need not lead to the directory any more: its
// inode tells.
type dirTimes struct {
	path string
	times
}

func (u *unpacker) setDirTimes() error {
	for ino, want := range u.dirs {
		fd, err := u.root.open(want.path)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // a later entry replaced it
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Ino == ino {
			err = want.set(fd, ".")
		}
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
