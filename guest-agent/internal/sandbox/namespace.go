package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
)

// namespace is a kind of namespace that the sandbox keeps alive by a bind mount
// (kata-agent 2.9).
type namespace struct {
	name string
	flag int
}

var (
	ipcNamespace = namespace{"ipc", unix.CLONE_NEWIPC}
	utsNamespace = namespace{"uts", unix.CLONE_NEWUTS}
)

// IPCNamespace is the path of the namespace that all containers share.
func (s *Sandbox) IPCNamespace() string { return s.namespacePath(ipcNamespace.name) }

// UTSNamespace is like IPCNamespace; it has the pod's host name.
func (s *Sandbox) UTSNamespace() string { return s.namespacePath(utsNamespace.name) }

func (s *Sandbox) namespacePath(name string) string {
	return filepath.Join(s.dir, namespacesDir, name)
}

// PIDNamespace is the path of the pid namespace of the sandbox's first
// container, or empty before there is one.
func (s *Sandbox) PIDNamespace() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pidNS
}

// SharePID makes the pid namespace of the given process the one that containers
// of the sandbox may share, unless there is one already.
func (s *Sandbox) SharePID(first Holder) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pidNS != "" {
		return nil
	}
	path := s.namespacePath("pid")
	if err := bindFile(fmt.Sprintf("/proc/%d/ns/pid", first.PID()), path); err != nil {
		return fmt.Errorf("share the pid namespace: %w", err)
	}
	if err := first.Alive(); err != nil { // it may be another's, even the agent's own
		return errors.Join(fmt.Errorf("share the pid namespace: %w", err), unmountFile(path))
	}
	s.pidNS = path
	return nil
}

// persist makes a namespace and binds it to its path.
func (s *Sandbox) persist(n namespace, hostname string) (undo, error) {
	if n != utsNamespace {
		hostname = ""
	}
	path := s.namespacePath(n.name)
	done := make(chan error, 1)
	go func() { done <- makeNamespace(n, hostname, path) }()
	if err := <-done; err != nil {
		return nil, fmt.Errorf("make the %s namespace: %w", n.name, err)
	}
	return func(context.Context) error { return unmountFile(path) }, nil
}

// makeNamespace lets its thread leave its namespace and come back. It does not
// let the thread end, which would be simpler: a dying thread hands the children
// that were ever forked on it to the main thread, where the reaper would take
// them for orphans (see container.Reaper).
func makeNamespace(n namespace, hostname, path string) (err error) {
	runtime.LockOSThread()
	self := "/proc/thread-self/ns/" + n.name
	home, err := os.Open(self)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = home.Close() }()
	if err := unix.Unshare(n.flag); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	if hostname != "" {
		err = unix.Sethostname([]byte(hostname))
	}
	if err == nil {
		err = bindFile(self, path)
	}
	if back := unix.Setns(int(home.Fd()), n.flag); back != nil {
		panic(fmt.Sprintf("cannot return to the agent's %s namespace: %v", n.name, back))
	}
	runtime.UnlockOSThread()
	return err
}

// bindFile makes an empty file and binds source over it.
func bindFile(source, path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func unmountFile(path string) error {
	if err := unmount(path); err != nil {
		return err
	}
	return os.Remove(path)
}

// mountsBelow lists the mount points at or below dir.
func mountsBelow(dir string) ([]string, error) {
	mounts, err := mountinfo.Self()
	return mountinfo.Below(mounts, dir), err
}
