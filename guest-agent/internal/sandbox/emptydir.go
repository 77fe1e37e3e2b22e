package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// EmptyDir is a volume of the pod's that the agent makes and keeps itself, or a part
// of it, whatever the host has in its place.
type EmptyDir struct {
	Volume string // its name in the pod
	Path   string // of the part; empty for all of it
	Memory bool   // a filesystem in memory of its own; else a directory of the agent's
	Group  int    // that owns it, as Kubernetes' fsGroup wants it; -1 for none
}

// Kinds of what EmptyDir makes, in the table of storages.
const (
	driverOwn     = "the agent's own"
	driverOwnTmp  = "the agent's own, in memory"
	driverOwnPart = "part of the agent's own"
)

// partsDir is where parts are mounted in a bundle, which no host can name and no
// container reaches.
const partsDir = "parts"

// emptyDirMode lets every user of a pod write, as Kubernetes has it.
const emptyDirMode = 0o777

var volumeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (d EmptyDir) check() error {
	part := d.Path == "" || filepath.IsLocal(d.Path) && filepath.Clean(d.Path) == d.Path && len(d.Path) < unix.PathMax && !strings.Contains(d.Path, "\x00")
	switch {
	case !volumeName.MatchString(d.Volume):
		return invalidf("%.64q is no name of a volume", d.Volume)
	case !part:
		return invalidf("%.64q is no path in a volume", d.Path)
	case d.Group < -1 || d.Group > math.MaxInt32:
		return invalidf("%d is not a group id", d.Group)
	}
	return nil
}

// EmptyDir makes the volume, unless it is there, and the part of it, and returns
// where it can be mounted from. That is a mount of its own: between the look at a
// path in a volume and its use, the volume's other users could make the path lead
// elsewhere (CVE-2021-25741). The volume stays until the pod ends.
func (v *Volumes) EmptyDir(ctx context.Context, owner string, d EmptyDir) (string, error) {
	if err := d.check(); err != nil {
		return "", err
	}
	rel, kind := filepath.Join(volumesDir, "dir-"+d.Volume), driverOwn
	if d.Memory {
		kind = driverOwnTmp
	}
	volume, err := v.s.storages.acquire(ctx, rel, kind, func(context.Context) (undo, error) { return v.s.emptyDir(rel, d) })
	if err != nil {
		return "", err
	}
	v.held, v.pods = append(v.held, volume), append(v.pods, volume)
	part := filepath.Join(owner, partsDir, strconv.Itoa(len(v.held)))
	at, err := v.s.storages.acquire(ctx, part, driverOwnPart, func(context.Context) (undo, error) {
		root, err := v.s.root.OpenRoot(rel)
		if err != nil {
			return nil, err
		}
		defer func() { _ = root.Close() }()
		tree, err := clonePart(root, d.Path)
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", d.Volume, err)
		}
		defer func() { _ = tree.Close() }()
		return v.s.attach(part, tree)
	})
	if err != nil {
		return "", err
	}
	v.held = append(v.held, at)
	source := filepath.Join(v.s.dir, part)
	if v.made == nil {
		v.made = map[string]bool{}
	}
	v.made[source] = true
	return source, nil
}

// MountSource is [Sandbox.MountSource] for one container, which may also mount what
// EmptyDir returned for it.
func (v *Volumes) MountSource(path string) (string, error) {
	if v.made[path] {
		return path, nil
	}
	return v.s.MountSource(path)
}

// emptyDir makes a volume.
func (s *Sandbox) emptyDir(rel string, d EmptyDir) (undo, error) {
	if err := errors.Join(s.root.MkdirAll(volumesDir, 0o711), s.root.Mkdir(rel, 0o700)); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, rel)
	remove := func(context.Context) error {
		if d.Memory {
			if err := unmount(path); err != nil {
				return err
			}
		}
		return s.root.RemoveAll(rel)
	}
	var err error
	if d.Memory {
		if err = unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			err = fmt.Errorf("mount memory for the volume %s: %w", d.Volume, err)
		}
	}
	if err == nil {
		err = errors.Join(s.root.Chmod(rel, emptyDirMode), own(path, d.Group))
	}
	if err != nil {
		return nil, errors.Join(err, remove(context.Background()))
	}
	return remove, nil
}

// clonePart returns a detached mount of a directory or a file in a volume.
// Directories that are not there are made as the volume's own is, which is what a
// kubelet does. No link leads out of the volume.
func clonePart(root *os.Root, path string) (*os.File, error) {
	if path == "" {
		path = "."
	} else if err := makeLike(root, path); err != nil {
		return nil, invalidf("the part %.128q cannot be had: %v", path, err)
	}
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0) // a pipe must not hold us
	if err != nil {
		return nil, invalidf("the part %.128q cannot be had: %v", path, err)
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() && !fi.Mode().IsRegular() {
		return nil, invalidf("the part %.128q is neither a directory nor a file", path)
	}
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount a part: %w", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// makeLike makes the directories of a path that are not there, with the mode and
// the group of the root.
func makeLike(root *os.Root, path string) error {
	top, err := root.Stat(".")
	if err != nil {
		return err
	}
	gid := -1
	if st, ok := top.Sys().(*syscall.Stat_t); ok {
		gid = int(st.Gid)
	}
	at := ""
	for name := range strings.SplitSeq(path, "/") {
		at = filepath.Join(at, name)
		switch err := root.Mkdir(at, 0o700); {
		case errors.Is(err, fs.ErrExist):
		case err != nil:
			return err
		default:
			if err := errors.Join(root.Chown(at, -1, gid), root.Chmod(at, top.Mode())); err != nil {
				return err
			}
		}
	}
	return nil
}
