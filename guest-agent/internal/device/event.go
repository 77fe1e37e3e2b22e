package device

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Event is what the kernel says of a device that came or went (Linux,
// lib/kobject_uevent.c): a line ACTION@DEVPATH, then variables, each ended by a
// zero byte.
type Event struct {
	Action    string // add, remove, change ...
	Path      string // below /sys
	Subsystem string
}

// ParseEvent reads an event. What udev sends to its own listeners is none.
func ParseEvent(raw []byte) (Event, error) {
	head, rest, _ := bytes.Cut(raw, []byte{0})
	action, path, ok := strings.Cut(string(head), "@")
	if !ok || action == "" || !strings.HasPrefix(path, "/") {
		return Event{}, invalidf("an event without its head")
	}
	e := Event{Action: action, Path: path}
	for variable := range bytes.SplitSeq(rest, []byte{0}) {
		if value, ok := strings.CutPrefix(string(variable), "SUBSYSTEM="); ok {
			e.Subsystem = value
		}
	}
	return e, nil
}

// Events are the kernel's. Receive waits for the next one; it fails when they
// were closed.
type Events interface {
	Receive() ([]byte, error)
	Close() error
}

// uevents is a netlink socket in Go's poller.
type uevents struct {
	socket *os.File
	buf    []byte
}

// Listen opens the kernel's events (netlink(7), NETLINK_KOBJECT_UEVENT). Only the
// kernel itself can send to the group that is joined.
func Listen() (Events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open the kernel's events: %w", err)
	}
	const kernel = 1 // the group of the kernel, not of udev
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernel}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open the kernel's events: %w", err)
	}
	const longest = 8 << 10 // four times UEVENT_BUFFER_SIZE
	return &uevents{os.NewFile(uintptr(fd), "uevents"), make([]byte, longest)}, nil
}

func (u *uevents) Receive() ([]byte, error) {
	n, err := u.socket.Read(u.buf)
	return u.buf[:max(n, 0)], err
}

func (u *uevents) Close() error { return u.socket.Close() }
