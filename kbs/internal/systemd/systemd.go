// Package systemd speaks the two protocols by which systemd follows and feeds
// a service: notifications (sd_notify(3)) and passed sockets
// (sd_listen_fds(3)). Both are small enough to need no library.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// States that a service tells.
const (
	Ready     = "READY=1"
	Reloading = "RELOADING=1" // until Ready comes again
	Stopping  = "STOPPING=1"
	Watchdog  = "WATCHDOG=1"
)

// Notifier tells systemd about the state of the service. One that was not
// started by systemd tells nobody.
type Notifier struct{ socket string }

// NewNotifier reads NOTIFY_SOCKET.
func NewNotifier(getenv func(string) string) Notifier { return Notifier{getenv("NOTIFY_SOCKET")} }

// Notify sends states, as one datagram.
func (n Notifier) Notify(states ...string) error {
	if n.socket == "" {
		return nil
	}
	// A leading @ is an abstract address; package net knows that.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte(strings.Join(states, "\n"))); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// WatchdogInterval is how often systemd wants to hear Watchdog, at half the
// time after which it kills the service; 0 is never.
func WatchdogInterval(getenv func(string) string, pid int) time.Duration {
	if p := getenv("WATCHDOG_PID"); p != "" && p != strconv.Itoa(pid) {
		return 0
	}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}

// firstFD is where passed sockets begin (SD_LISTEN_FDS_START).
const firstFD = 3

// Listeners returns the sockets that systemd passed, by their names
// (FileDescriptorName=). They are taken over: a second call would return
// closed ones.
func Listeners(getenv func(string) string, pid int) (map[string][]net.Listener, error) {
	return listeners(getenv, pid, func(i int, name string) *os.File { return os.NewFile(uintptr(firstFD+i), name) })
}

func listeners(getenv func(string) string, pid int, file func(i int, name string) *os.File) (map[string][]net.Listener, error) {
	count := getenv("LISTEN_FDS")
	if getenv("LISTEN_PID") != strconv.Itoa(pid) || count == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 64 {
		return nil, fmt.Errorf("LISTEN_FDS is %q, not a number of sockets", count)
	}
	if n == 0 {
		return nil, nil
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	if len(names) != n {
		return nil, fmt.Errorf("systemd passed %d sockets and %d names: give each FileDescriptorName=", n, len(names))
	}
	out := map[string][]net.Listener{}
	for i, name := range names {
		f := file(i, name)
		ln, err := net.FileListener(f)
		_ = f.Close() // the listener has a descriptor of its own
		if err != nil {
			return nil, fmt.Errorf("socket %q of systemd: %w", name, err)
		}
		out[name] = append(out[name], ln)
	}
	return out, nil
}
