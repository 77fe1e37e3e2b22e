package sandbox

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// target is where a storage is mounted: below one of the parts that are open to
// the host, or the root of the container that the storage is for, which lies in
// the container's own bundle.
type target struct {
	s   *Sandbox
	rel string // relative to the state directory
	own bool   // the owner's root
}

func (s *Sandbox) target(owner, rel string) target {
	return target{s: s, rel: rel, own: owner != "" && rel == filepath.Join(owner, "rootfs")}
}

// open makes and opens the directory. The file must be closed.
func (t target) open() (*os.File, error) {
	if !t.own {
		return t.s.mountPoint(t.rel)
	}
	if err := t.s.root.MkdirAll(t.rel, 0o755); err != nil {
		return nil, err
	}
	return t.s.root.Open(t.rel)
}

// openShared opens the shared directory itself, for a share of the host's that
// holds everything. It must be empty: what lies there would be hidden.
func (t target) openShared() (*os.File, error) {
	f, err := t.s.root.Open(sharedDir)
	if err != nil {
		return nil, err
	}
	if _, err := f.Readdirnames(1); !errors.Is(err, io.EOF) {
		return nil, errors.Join(invalidf("the shared directory is in use"), err, f.Close())
	}
	return f, nil
}

// isRoot says whether a container's root is mounted here. Its programs may be
// privileged; those of a volume may not.
func (t target) isRoot() bool { return t.own || filepath.Base(t.rel) == "rootfs" }

// flags are those that every mount of what the host provides has.
func (t target) flags() uintptr {
	if t.isRoot() {
		return unix.MS_NODEV
	}
	return unix.MS_NODEV | unix.MS_NOSUID
}

// remove removes the directory if it is empty.
func (t target) remove() {
	if t.own {
		_ = t.s.root.Remove(t.rel)
		return
	}
	if part, name, err := t.s.open(t.rel); err == nil {
		_ = part.Remove(name)
		_ = part.Close()
	}
}

// unmounter undoes a mount.
func (t target) unmounter(path string) undo {
	return func(context.Context) error {
		if err := unmount(path); err != nil {
			return err
		}
		t.remove()
		return nil
	}
}

// kataOption is the beginning of options that are for the agent and not for a
// filesystem.
const kataOption = "X-kata."

// kataOptions takes the options for the agent out of a storage's.
func kataOptions(list []string) (own map[string][]string, rest []string) {
	own = map[string][]string{}
	for _, o := range list {
		key, value, _ := strings.Cut(o, "=")
		if name, ok := strings.CutPrefix(key, kataOption); ok {
			own[name] = append(own[name], value)
		} else {
			rest = append(rest, o)
		}
	}
	return own, rest
}
