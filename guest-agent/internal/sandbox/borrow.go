package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// driverBorrow names, in the table of storages, what was taken from a container.
const driverBorrow = "of another container"

// borrowDir is where that lies in a bundle, which no host can name.
const borrowDir = "borrowed"

// Borrow makes a directory or a file of another container, by the path that it
// has there, available to the owner, and returns where (kata-agent 1.2,
// shared_mounts). The container is that of the process. It is released with the
// other volumes.
func (v *Volumes) Borrow(ctx context.Context, owner string, pid int, source string) (string, error) {
	rel := filepath.Join(owner, borrowDir, strconv.Itoa(len(v.held)))
	e, err := v.s.storages.acquire(ctx, rel, driverBorrow, func(context.Context) (undo, error) {
		tree, err := cloneFrom(pid, source)
		if err != nil {
			return nil, err
		}
		defer func() { _ = tree.Close() }()
		return v.s.attach(rel, tree)
	})
	if err != nil {
		return "", err
	}
	v.held = append(v.held, e)
	return filepath.Join(v.s.dir, rel), nil
}

// attach mounts a detached tree in a bundle.
func (s *Sandbox) attach(rel string, tree *os.File) (undo, error) {
	fi, err := tree.Stat()
	if err != nil {
		return nil, err
	}
	if err := s.root.MkdirAll(filepath.Dir(rel), 0o700); err != nil {
		return nil, err
	}
	if fi.IsDir() {
		err = s.root.Mkdir(rel, 0o700)
	} else {
		err = s.root.WriteFile(rel, nil, 0o600)
	}
	if err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, rel)
	release := func(context.Context) error {
		if err := unmount(path); err != nil {
			return err
		}
		return s.root.Remove(rel)
	}
	if err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, errors.Join(fmt.Errorf("mount what another container has: %w", err), release(context.Background()))
	}
	return release, nil
}

// cloneFrom returns a detached copy of what is mounted at a path of the process's
// container.
func cloneFrom(pid int, path string) (*os.File, error) {
	type result struct {
		tree *os.File
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, as it is in another's namespace
		tree, err := cloneInside(pid, path)
		done <- result{tree, err}
	}()
	r := <-done
	return r.tree, r.err
}

// cloneInside moves the calling thread into the container. Links on the way lead
// nowhere but to places of the container.
func cloneInside(pid int, path string) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, invalidf("the path %.256q in another container is not absolute", path)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, err
	}
	if err := enter(pid); err != nil {
		return nil, fmt.Errorf("enter another container: %w", err)
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(root) }()
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	at, err := unix.Openat2(root, path, &how)
	if err != nil {
		return nil, invalidf("another container's %.256q cannot be had: %v", path, err)
	}
	defer func() { _ = unix.Close(at) }()
	fd, err := unix.OpenTree(at, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("copy what another container has: %w", err)
	}
	tree := os.NewFile(uintptr(fd), path)
	// The options of a bind mount would concern the uppermost of these mounts alone.
	tame := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &tame); err != nil {
		return nil, errors.Join(fmt.Errorf("take devices and privileged programs out of what another container has: %w", err), tree.Close())
	}
	return tree, nil
}

// enter puts the calling thread into the mount namespace of a process, which must
// not be the agent's: a process that has ended may have left its number to one of
// the agent's own.
func enter(pid int) error {
	other, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return err
	}
	defer func() { _ = other.Close() }()
	theirs, err1 := other.Stat()
	ours, err2 := os.Stat("/proc/self/ns/mnt")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if os.SameFile(theirs, ours) {
		return invalidf("the container has ended")
	}
	return unix.Setns(int(other.Fd()), unix.CLONE_NEWNS)
}
