package serialport

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// port is a listener whose port is one end of a socket pair; what a port really
// does needs one: tests/boot talks to the agent over it.
func port(t *testing.T) (l *Listener, host *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, host = newListener(os.NewFile(uintptr(fds[0]), "guest"), "agent.0"), os.NewFile(uintptr(fds[1]), "host")
	t.Cleanup(func() { _, _ = l.Close(), host.Close() })
	return l, host
}

func accept(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Who read and wrote on a connection that was closed does not on the next, which
// is had once they are gone; nor do the deadlines of the one count for the other.
func TestOneConnectionAtATime(t *testing.T) {
	l, host := port(t)
	one := accept(t, l)
	read, wrote := make(chan error, 1), make(chan error, 1)
	go func() { _, err := one.Read(make([]byte, 10)); read <- err }()
	go func() {
		_, err := one.Write(make([]byte, 1<<22)) // more than the host takes
		wrote <- err
	}()
	if _, err := io.ReadFull(host, make([]byte, 1)); err != nil { // it writes by now
		t.Fatal(err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	two := accept(t, l)
	for _, err := range []error{<-read, <-wrote} {
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the closed connection says %v", err)
		}
	}
	if err := one.SetDeadline(longAgo); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := host.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if n, err := two.Read(got); err != nil || string(got[:n]) != "hello" {
		t.Errorf("the next one reads %q, %v", got[:n], err)
	}
}

// The last answer is sent after nothing more is accepted; then the port is closed.
func TestClose(t *testing.T) {
	l, host := port(t)
	c := accept(t, l)
	waiting := make(chan error, 1)
	go func() { _, err := l.Accept(); waiting <- err }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := c.Write([]byte("the last")); err != nil {
		t.Errorf("after the listener was closed: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_ = host.SetReadDeadline(time.Now().Add(30 * time.Second))
	if got, err := io.ReadAll(host); err != nil || string(got) != "the last" {
		t.Errorf("the host reads %q, %v", got, err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// A listener without connection closes its port at once.
func TestCloseUnused(t *testing.T) {
	l, host := port(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_ = host.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := host.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the port is open: %d, %v", n, err)
	}
}

// The host's end is the connection's.
func TestTheHostGoes(t *testing.T) {
	l, host := port(t)
	c := accept(t, l)
	if err := host.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if len(l.turn) != 1 {
		t.Error("the port is not given back, or twice")
	}
}

func TestFind(t *testing.T) {
	class := t.TempDir()
	for port, name := range map[string]string{"vport0p1": "console.0\n", "vport0p2": "agent.0\n"} {
		if err := os.Mkdir(filepath.Join(class, port), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, port, "name"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := find(class, "agent.0"); err != nil || got != "/dev/vport0p2" {
		t.Errorf("%q, %v", got, err)
	}
	for _, dir := range []string{class, filepath.Join(class, "none")} {
		if got, err := find(dir, "agent"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q, %v", got, err)
		}
	}
}
