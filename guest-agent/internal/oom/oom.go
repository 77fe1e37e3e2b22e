// Package oom learns from the kernel that a container ran out of memory: by an
// eventfd of the memory controller of cgroup v1, or by inotify on memory.events
// of cgroup v2 (Linux, Documentation/admin-guide/cgroup-v1/memory.rst section 9
// and cgroup-v2.rst, memory.events). A runtime asks for one event after the
// other, and waits for the next (kata-agent 1.2).
//
// A watch is opened before the container's program runs, and closed when the
// container is removed. That the cgroup goes before is no event.
package oom

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/cgroup"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/mountinfo"
)

// ErrUnsupported says that the memory controller cannot be watched.
var ErrUnsupported = errors.New("no memory controller that tells of processes that it kills")

// A Watch tells of the kills in one cgroup.
type Watch struct {
	event *os.File // in the poller: an eventfd, or inotify
	dir   string   // of the cgroup
	read  func() (kills uint64, err error)
	close func() error
	done  sync.WaitGroup
}

// Open watches the cgroup that a process is in. From then on told is called
// after each look that found kills, by one goroutine, until Close or the cgroup's
// end.
func Open(pid int, told func()) (*Watch, error) {
	w, err := open(pid)
	if err != nil {
		return nil, fmt.Errorf("watch for a lack of memory: %w", err)
	}
	w.done.Go(func() { w.run(told) })
	return w, nil
}

func open(pid int) (*Watch, error) {
	dir, v2, err := memoryOf(pid)
	switch {
	case err != nil:
		return nil, err
	case v2:
		return openV2(dir)
	default:
		return openV1(dir)
	}
}

// memoryOf finds where the memory controller keeps a process's cgroup.
func memoryOf(pid int) (dir string, v2 bool, err error) {
	cgroups, err := cgroup.Of(pid)
	if err != nil {
		return "", false, err
	}
	mounts, err := mountinfo.Self()
	if err != nil {
		return "", false, err
	}
	if dir, v2 = cgroups.Dirs(mounts).Of("memory"); dir == "" {
		return "", false, ErrUnsupported
	}
	return dir, v2, nil
}

// Close ends the watch and waits for its last call.
func (w *Watch) Close() error {
	err := w.event.Close()
	w.done.Wait()
	return errors.Join(err, w.close())
}

// run waits for events until there can be no more.
func (w *Watch) run(told func()) {
	var seen uint64
	for buf := make([]byte, 4096); ; {
		if _, err := w.event.Read(buf); err != nil {
			return
		}
		kills, err := w.read()
		if kills > seen {
			seen = kills
			told()
		}
		if err != nil && !errors.Is(err, ErrUnsupported) {
			return
		}
	}
}

// openV1 registers an eventfd. It counts situations without memory, each of which
// ends in a kill, and is also signalled when the cgroup is removed.
func openV1(dir string) (*Watch, error) {
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return nil, err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(err, control.Close())
	}
	event := os.NewFile(uintptr(fd), "oom")
	line := fmt.Sprintf("%d %d", fd, control.Fd())
	if err := os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(line), 0); err != nil {
		return nil, errors.Join(err, event.Close(), control.Close())
	}
	var kills uint64
	return &Watch{event: event, dir: dir, close: control.Close, read: func() (uint64, error) {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.event_control")); err != nil {
			return kills, fs.ErrClosed // removed: this was no lack of memory
		}
		kills++
		return kills, nil
	}}, nil
}

// openV2 waits for changes of memory.events, which counts the kills.
func openV2(dir string) (*Watch, error) {
	path := filepath.Join(dir, "memory.events")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	event := os.NewFile(uintptr(fd), "memory.events")
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		return nil, errors.Join(err, event.Close())
	}
	return &Watch{event: event, dir: dir, close: func() error { return nil }, read: func() (uint64, error) {
		raw, err := readLimited(path)
		if err != nil {
			return 0, err
		}
		return parseKills(raw)
	}}, nil
}

// parseKills finds the number of killed processes in memory.events: lines of a
// name and a number.
func parseKills(raw []byte) (uint64, error) {
	for line := range bytes.Lines(raw) {
		name, number, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if string(name) == "oom_kill" {
			return strconv.ParseUint(string(number), 10, 64)
		}
	}
	return 0, ErrUnsupported
}

// maxProc bounds what is read of the kernel's tables, in bytes.
const maxProc = 1 << 20

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxProc))
}
