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

// Holder is a process that is asked for by its number, because the kernel has no
// other name for what it holds. Whoever has opened something by the number asks
// afterwards whether it still was that process's: the number of a process that
// has ended may be another's, even the agent's own child's.
type Holder interface {
	PID() int
	// Alive fails once the number may be another process's.
	Alive() error
}

// Borrow makes a directory or a file of another container, by the path that it
// has there, available to the owner, and returns where (kata-agent 1.2,
// shared_mounts). The container is that of the process. It is released with the
// other volumes.
func (v *Volumes) Borrow(ctx context.Context, owner string, from Holder, source string) (string, error) {
	rel := filepath.Join(owner, borrowDir, strconv.Itoa(len(v.held)))
	e, err := v.s.storages.acquire(ctx, rel, driverBorrow, func(context.Context) (undo, error) {
		tree, err := cloneFrom(from, source)
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
func cloneFrom(from Holder, path string) (tree *os.File, err error) {
	if !filepath.IsAbs(path) {
		return nil, invalidf("the path %.256q in another container is not absolute", path)
	}
	theirs, err := mountsOf(from)
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	done := make(chan error, 1)
	go func() { // of its own: a panic in there ends the process, for its thread would be in another's namespace
		done <- within(theirs, func() (err error) {
			tree, err = cloneHere(path)
			return err
		})
	}()
	err = <-done
	return tree, err
}

// mountsOf opens the mount namespace of a process, which must not be the agent's.
func mountsOf(from Holder) (*os.File, error) {
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", from.PID()))
	if err != nil {
		return nil, invalidf("the container has ended: %v", err)
	}
	if from.Alive() != nil {
		return nil, errors.Join(invalidf("the container has ended"), theirs.Close())
	}
	fi, err1 := theirs.Stat()
	ours, err2 := os.Stat("/proc/self/ns/mnt")
	if err := errors.Join(err1, err2); err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	if os.SameFile(fi, ours) {
		return nil, errors.Join(invalidf("the container has no mounts of its own"), theirs.Close())
	}
	return theirs, nil
}

// within does something on a thread that is in another mount namespace meanwhile.
// The thread comes back, as in makeNamespace and for the same reason. What it does
// not share with the others from then on are root and working directory, which the
// agent has no reason to change.
func within(mounts *os.File, do func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	at, err := whereabouts()
	if err != nil {
		return err
	}
	defer at.close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter another container: %w", err)
	}
	err = do()
	if back := at.back(); back != nil {
		panic(fmt.Sprintf("cannot return to the agent's mount namespace: %v", back))
	}
	return err
}

// whereabout is where a thread is.
type whereabout struct{ mounts, root, dir int }

func whereabouts() (at whereabout, err error) {
	at = whereabout{-1, -1, -1}
	for to, path := range map[*int]string{&at.mounts: "/proc/thread-self/ns/mnt", &at.root: "/", &at.dir: "."} {
		flags := unix.O_CLOEXEC
		if to != &at.mounts {
			flags |= unix.O_PATH | unix.O_DIRECTORY
		}
		if *to, err = unix.Open(path, flags, 0); err != nil {
			at.close()
			return at, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
	return at, nil
}

// back returns there.
func (w whereabout) back() error {
	if err := unix.Setns(w.mounts, unix.CLONE_NEWNS); err != nil {
		return err
	}
	return errors.Join(unix.Fchdir(w.root), unix.Chroot("."), unix.Fchdir(w.dir))
}

func (w whereabout) close() {
	for _, fd := range []int{w.mounts, w.root, w.dir} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// cloneHere copies what the calling thread has at a path. Links on the way lead
// nowhere but to places of the container.
func cloneHere(path string) (*os.File, error) {
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
