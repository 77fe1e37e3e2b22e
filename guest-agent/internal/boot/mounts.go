package boot

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is one file system of the kernel's.
type mount struct {
	kind, target string
	flags        uintptr
	options      string
	optional     bool // not every kernel has it
}

const (
	plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// scratch may hold programs: containers run from below /run.
	scratch = unix.MS_NOSUID | unix.MS_NODEV
)

// topMounts are where mountAll mounts below nothing else.
var topMounts = []string{"/proc", "/sys", "/dev", "/run", "/tmp"}

// mountAll mounts what an init has to (kata-agent 3.1), and gives the process a
// console. What is mounted already, as after a root that came from a disk, stays.
func mountAll() error {
	err := mountEach([]mount{
		{kind: "proc", target: "/proc", flags: plain},
		{kind: "sysfs", target: "/sys", flags: plain},
		{kind: "devtmpfs", target: "/dev", flags: unix.MS_NOSUID | unix.MS_NOEXEC, options: "mode=755"},
		{kind: "devpts", target: "/dev/pts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, options: "gid=5,mode=620,ptmxmode=666"},
		{kind: "tmpfs", target: "/dev/shm", flags: plain, options: "mode=1777"},
		{kind: "tmpfs", target: "/run", flags: scratch, options: "mode=755"},
		{kind: "tmpfs", target: "/tmp", flags: scratch, options: "mode=1777"},
		{kind: "mqueue", target: "/dev/mqueue", flags: plain, optional: true},
		{kind: "securityfs", target: "/sys/kernel/security", flags: plain, optional: true},
		{kind: "cgroup2", target: "/sys/fs/cgroup", flags: plain, options: "nsdelegate,memory_recursiveprot"},
	})
	if err != nil {
		return err
	}
	if err := linkStreams("/dev"); err != nil {
		return err
	}
	return openConsole()
}

// linkStreams makes the names by which programs open their own streams; the
// kernel leaves them to udev, which is not there. crun reads changed limits from
// /dev/stdin.
func linkStreams(dev string) error {
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, dev+"/"+name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// mountLate mounts what may come from a module.
func mountLate() error {
	return mountEach([]mount{{kind: "configfs", target: "/sys/kernel/config", flags: plain, optional: true}})
}

func mountEach(list []mount) error {
	for _, m := range list {
		if err := m.do(); err != nil {
			return fmt.Errorf("%s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

func (m mount) do() error {
	if isMountPoint(m.target) {
		return nil
	}
	if err := os.Mkdir(m.target, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		if m.optional { // a place in the kernel's own tree that this kernel lacks
			return nil
		}
		return err
	}
	err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.options)
	if m.optional && (errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)) {
		return nil
	}
	return err
}

// isMountPoint compares the device of a directory with that of its parent; every
// file system above has a device of its own.
func isMountPoint(dir string) bool {
	var here, above unix.Stat_t
	if unix.Lstat(dir, &here) != nil || unix.Lstat(dir+"/..", &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}

// openConsole makes the console the standard streams: whoever built the image
// may have left the node out, and then the kernel gave the init none.
func openConsole() error {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		fd, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0) // a machine without a console
	}
	if err != nil {
		return fmt.Errorf("open the console: %w", err)
	}
	for stream := range 3 {
		if err := unix.Dup3(fd, stream, 0); err != nil {
			return err
		}
	}
	return unix.Close(fd)
}

// delegate gives the controllers of the root group to the groups below it, where
// the OCI runtime makes those of the containers. The root may hold processes
// beside them (Documentation/admin-guide/cgroup-v2.rst), so the agent stays.
func delegate() error {
	const root = "/sys/fs/cgroup/"
	controllers, err := readSmall(root + "cgroup.controllers")
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(controllers) {
		if err := os.WriteFile(root+"cgroup.subtree_control", []byte("+"+c), 0); err != nil {
			return fmt.Errorf("controller %s: %w", c, err)
		}
	}
	return nil
}
