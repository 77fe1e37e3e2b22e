package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A tree is every inode of an image but its root, by path: all metadata and a
// hash of the contents, in one line each.
type tree map[string]string

// inventory reads the tree below dir, on all cores.
func inventory(dir string) (tree, error) {
	paths := make(chan string, 1024)
	t := tree{}
	var mu sync.Mutex
	all, ctx := errgroup.WithContext(context.Background())
	all.Go(func() error {
		defer close(paths)
		return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || path == dir {
				return err
			}
			select {
			case paths <- path:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range runtime.NumCPU() {
		all.Go(func() error {
			part, buf := tree{}, make([]byte, 1<<20)
			for path := range paths {
				line, err := describe(path, buf)
				if err != nil {
					return err
				}
				part[strings.TrimPrefix(path, dir)] = line
			}
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(t, part)
			return nil
		})
	}
	err := all.Wait()
	return t, err
}

func describe(path string, buf []byte) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	attributes, err := xattrs(path)
	if err != nil {
		return "", fmt.Errorf("attributes of %s: %w", path, err)
	}
	line := fmt.Sprintf("mode %o owner %d:%d time %d.%d%s", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, attributes)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		sum, err := contents(path, buf)
		return fmt.Sprintf("%s links %d size %d sum %x", line, st.Nlink, st.Size, sum), err
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		return fmt.Sprintf("%s to %q", line, target), err
	case unix.S_IFBLK, unix.S_IFCHR:
		return fmt.Sprintf("%s device %d", line, st.Rdev), nil
	}
	return line, nil
}

func contents(path string, buf []byte) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	_, err = io.CopyBuffer(h, struct{ io.Reader }{f}, buf)
	return h.Sum(nil), err
}

func xattrs(path string) (string, error) {
	var names, value [4096]byte
	n, err := unix.Llistxattr(path, names[:])
	if err != nil || n == 0 {
		return "", err
	}
	var list []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(path, name, value[:])
		if err != nil {
			return "", err
		}
		list = append(list, fmt.Sprintf(" %s=%x", name, value[:n]))
	}
	slices.Sort(list)
	return strings.Join(list, ""), nil
}

// differences lists where other is not like t, at most a few, and how many there are.
func (t tree) differences(other tree) (list []string, count int) {
	all := maps.Clone(t)
	maps.Copy(all, other)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		a, b := t[path], other[path]
		if a == b {
			continue
		}
		if count++; len(list) < 3 {
			list = append(list, fmt.Sprintf("%s: %q, ours %q", path, b, a))
		}
	}
	return list, count
}
