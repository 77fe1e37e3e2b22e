// Package serialport serves over a virtio-serial port: one stream of bytes
// between the host and the guest, for hypervisors without vsock, and for machines
// that are saved and restored, which vsock's state does not survive.
//
// A port knows no connections, only whether the host has its end open. That is
// what a connection is here: there is one at a time, and it ends when the host
// closes its end. What the host had sent by then is read to its end first, so
// that nothing of it is taken for the beginning of the next.
package serialport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotFound means that the machine has no port of that name.
var ErrNotFound = errors.New("there is no such virtio-serial port")

// classDir is where the kernel lists ports, each with its name in a file.
const classDir = "/sys/class/virtio-ports"

// Find returns the device node of the port with a name.
func Find(name string) (string, error) { return find(classDir, name) }

func find(class, name string) (string, error) {
	ports, err := os.ReadDir(class)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for _, p := range ports {
		raw, err := os.ReadFile(filepath.Join(class, p.Name(), "name"))
		if err == nil && strings.TrimSpace(string(raw)) == name {
			return filepath.Join("/dev", p.Name()), nil
		}
	}
	return "", fmt.Errorf("%w: %.64q", ErrNotFound, name)
}

// Listener accepts the connections of a port, one after the other.
type Listener struct {
	port *os.File
	name string

	turn   chan struct{} // holds a value while no connection is open
	closed chan struct{}
	once   sync.Once
}

// Listen opens the port with a name. Nobody else can have it open.
func Listen(name string) (*Listener, error) {
	path, err := Find(name)
	if err != nil {
		return nil, err
	}
	// Non-blocking, so that closing wakes a reader up.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	l := &Listener{port: os.NewFile(uintptr(fd), path), name: name, turn: make(chan struct{}, 1), closed: make(chan struct{})}
	l.turn <- struct{}{}
	return l, nil
}

// look is how often the port is looked at for a host: the kernel wakes up those
// who wait for data, and not those who wait for somebody to send any.
const look = 20 * time.Millisecond

// Accept waits for the host to open its end.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.turn:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		open, err := l.hostIsThere()
		if err != nil {
			return nil, err
		}
		if open {
			return &conn{File: l.port, l: l}, nil
		}
		select {
		case <-tick.C:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

func (l *Listener) hostIsThere() (bool, error) {
	raw, err := l.port.SyscallConn()
	if err != nil {
		return false, err
	}
	var events int16
	var failed error
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
		_, failed = unix.Poll(p, 0)
		events = p[0].Revents
	})
	if errors.Is(failed, unix.EINTR) {
		failed = nil
	}
	return failed == nil && events&(unix.POLLHUP|unix.POLLERR) == 0, errors.Join(err, failed)
}

// Close closes the port, and with it the connection that is open.
func (l *Listener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		close(l.closed)
		err = l.port.Close()
	})
	return err
}

// Addr returns the port's name.
func (l *Listener) Addr() net.Addr { return addr(l.name) }

type addr string

func (addr) Network() string  { return "virtio-serial" }
func (a addr) String() string { return string(a) }

// conn is the port while the host has its end open.
type conn struct {
	*os.File // the listener's
	l        *Listener

	mu   sync.Mutex
	done bool // the host's end was seen closed, or ours was
}

// Read returns io.EOF for good once the host has closed its end.
func (c *conn) Read(p []byte) (int, error) {
	if c.isDone() {
		return 0, io.EOF
	}
	n, err := c.File.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		c.end()
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if c.isDone() {
		return 0, io.ErrClosedPipe
	}
	return c.File.Write(p)
}

func (c *conn) isDone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

// Close gives the port back. Only one end can be closed; the host's stays open
// until it closes it, and is then the next connection.
func (c *conn) Close() error {
	c.end()
	return nil
}

func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.done {
		c.done = true
		c.l.turn <- struct{}{}
	}
}

func (c *conn) LocalAddr() net.Addr  { return c.l.Addr() }
func (c *conn) RemoteAddr() net.Addr { return c.l.Addr() }
