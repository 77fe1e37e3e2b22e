package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Usage is what files occupy.
type Usage struct {
	Bytes  int64 // on the file system, in its own blocks: holes cost nothing
	Inodes int64 // files, directories and links; the hard links of one file count once
}

// Add returns the sum.
func (u Usage) Add(v Usage) Usage { return Usage{u.Bytes + v.Bytes, u.Inodes + v.Inodes} }

// Sub returns the difference.
func (u Usage) Sub(v Usage) Usage { return Usage{u.Bytes - v.Bytes, u.Inodes - v.Inodes} }

// exceeds reports that u is over a budget, of which a member that is zero
// allows anything.
func (u Usage) exceeds(budget Usage) bool {
	return budget.Bytes > 0 && u.Bytes > budget.Bytes || budget.Inodes > 0 && u.Inodes > budget.Inodes
}

// Usage returns what all complete layers occupy, and those whose removal has
// not ended. Mounts have a Usage of their own.
func (s *Store) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usage()
}

func (s *Store) usage() Usage {
	var all Usage
	for _, l := range s.layers {
		all = all.Add(l.usage)
	}
	for _, u := range s.graves {
		all = all.Add(u)
	}
	return all
}

// Usage returns what was written to the mount, and its bookkeeping. It walks
// over all of it.
func (m *Mount) Usage() (Usage, error) { return measure(m.path("")) }

// measure adds up a directory and all below it that lies on its file system.
// What disappears meanwhile does not count, for a container may be at work.
func measure(dir string) (Usage, error) {
	w := walker{linked: map[uint64]struct{}{}}
	var st unix.Stat_t
	err := unix.Lstat(dir, &st)
	if err == nil {
		w.dev = st.Dev
		w.count(&st)
		err = w.walk(unix.AT_FDCWD, dir)
	}
	if err != nil {
		return Usage{}, fmt.Errorf("measure %s: %w", dir, err)
	}
	return w.total, nil
}

type walker struct {
	total  Usage
	dev    uint64
	linked map[uint64]struct{} // inodes with several links that were counted
}

func (w *walker) count(st *unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if _, twice := w.linked[st.Ino]; twice {
			return
		}
		w.linked[st.Ino] = struct{}{}
	}
	w.total.Bytes += st.Blocks * 512
	w.total.Inodes++
}

func (w *walker) walk(at int, name string) error {
	d, err := openDir(at, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	fd := int(d.Fd())
	for _, n := range names {
		var st unix.Stat_t
		err := unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		if st.Dev != w.dev { // a layer's image is mounted here
			w.total.Inodes++
			continue
		}
		w.count(&st)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := w.walk(fd, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// openDir opens a directory below another, following no link.
func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
