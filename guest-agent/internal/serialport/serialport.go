// Package serialport serves over a virtio-serial port: one stream of bytes
// between the host and the guest, for hypervisors without vsock, and for machines
// that are saved and restored, which vsock's state does not survive.
//
// A port knows no connections, only whether the host has its end open. That is
// what a connection is here: there is one at a time, and it ends when the host
// closes its end. What the host had sent by then is read to its end first, so
// that nothing of it is taken for the beginning of the next. One that the guest
// closes is followed by another as soon as nobody reads or writes on it any more.
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
	return newListener(os.NewFile(uintptr(fd), path), name), nil
}

func newListener(port *os.File, name string) *Listener {
	l := &Listener{port: port, name: name, turn: make(chan struct{}, 1), closed: make(chan struct{})}
	l.turn <- struct{}{}
	return l
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
	if err := l.waitForHost(); err != nil {
		return nil, errors.Join(err, l.giveBack())
	}
	return &conn{File: l.port, l: l}, nil
}

func (l *Listener) waitForHost() error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if l.isClosed() {
			return net.ErrClosed
		}
		if open, err := l.hostIsThere(); err != nil || open {
			return err
		}
		select {
		case <-tick.C:
		case <-l.closed:
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

// Close accepts nothing more. As of every listener, a connection that is open
// stays so until it is closed by itself: answers are still to be sent.
func (l *Listener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		close(l.closed)
		err = l.closeUnused()
	})
	return err
}

func (l *Listener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// giveBack lets the next connection have the port.
func (l *Listener) giveBack() error {
	l.turn <- struct{}{}
	return l.closeUnused()
}

// closeUnused closes the port once nothing is accepted any more and nobody has it.
func (l *Listener) closeUnused() error {
	if !l.isClosed() {
		return nil
	}
	select {
	case <-l.turn: // for good
		return l.port.Close()
	default:
		return nil
	}
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
	busy int  // reads and writes under way
}

// Read returns io.EOF for good once the host has closed its end.
func (c *conn) Read(p []byte) (int, error) {
	if !c.enter() {
		return 0, io.EOF
	}
	n, err := c.File.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		c.end()
	}
	return n, c.leave(err)
}

func (c *conn) Write(p []byte) (int, error) {
	if !c.enter() {
		return 0, io.ErrClosedPipe
	}
	n, err := c.File.Write(p)
	return n, c.leave(err)
}

// enter says whether the port is still this connection's.
func (c *conn) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return false
	}
	c.busy++
	return true
}

// leave returns the error of a read or write that ends.
func (c *conn) leave(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	if !c.done {
		return err
	}
	c.handOver()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return net.ErrClosed // end has interrupted it
	}
	return err
}

// Close gives the port back. Only one end can be closed; the host's stays open
// until it closes it, and is then the next connection.
func (c *conn) Close() error {
	c.end()
	return nil
}

// end interrupts what is under way: it would take bytes of the next connection's,
// or put its own among them.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return
	}
	c.done = true
	_ = c.File.SetDeadline(longAgo)
	c.handOver()
}

// longAgo as a deadline makes every wait on a file end at once.
var longAgo = time.Unix(1, 0)

// handOver lets the next connection have the port when nobody of this one uses it.
func (c *conn) handOver() {
	if c.busy == 0 {
		_ = c.File.SetDeadline(time.Time{})
		_ = c.l.giveBack()
	}
}

// SetDeadline is for a connection that has the port: another's is not touched.
func (c *conn) SetDeadline(t time.Time) error { return c.set((*os.File).SetDeadline, t) }

// SetReadDeadline is like SetDeadline.
func (c *conn) SetReadDeadline(t time.Time) error { return c.set((*os.File).SetReadDeadline, t) }

// SetWriteDeadline is like SetDeadline.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.set((*os.File).SetWriteDeadline, t) }

func (c *conn) set(deadline func(*os.File, time.Time) error, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return net.ErrClosed
	}
	return deadline(c.File, t)
}

func (c *conn) LocalAddr() net.Addr  { return c.l.Addr() }
func (c *conn) RemoteAddr() net.Addr { return c.l.Addr() }
