package container

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// consoleSocket is where the runtime sends the master side of the terminal that
// it made for a process (runtime-spec, "console socket").
type consoleSocket struct {
	dir      string
	listener *net.UnixListener
}

// receiveTimeout bounds the wait for a terminal that the runtime has already
// sent when it is asked for: it sends it before it returns.
const receiveTimeout = 5 * time.Second

// newConsoleSocket listens in a directory of its own under the system's
// directory for temporary files: a path below a bundle could exceed the 107
// bytes that a socket's name may have.
func newConsoleSocket() (*consoleSocket, error) {
	dir, err := os.MkdirTemp("", "console-")
	if err != nil {
		return nil, fmt.Errorf("make a place for the console socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for the console: %w", err), os.RemoveAll(dir))
	}
	return &consoleSocket{dir: dir, listener: l}, nil
}

// Path implements runc.ConsoleSocket.
func (s *consoleSocket) Path() string { return filepath.Join(s.dir, "s") }

// Close ends the listener and removes the directory.
func (s *consoleSocket) Close() error {
	return errors.Join(s.listener.Close(), os.RemoveAll(s.dir))
}

// receive returns the terminal's master, in the poller.
func (s *consoleSocket) receive() (*os.File, error) {
	if err := s.listener.SetDeadline(time.Now().Add(receiveTimeout)); err != nil {
		return nil, fmt.Errorf("wait for the console: %w", err)
	}
	conn, err := s.listener.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("wait for the console: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(receiveTimeout)); err != nil {
		return nil, fmt.Errorf("wait for the console: %w", err)
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil {
		return nil, fmt.Errorf("receive the console: %w", err)
	}
	return fileFrom(oob[:n])
}

func fileFrom(oob []byte) (*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return nil, errors.New("receive the console: no descriptor came with the message")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("receive the console: no descriptor came with the message")
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, errors.Join(fmt.Errorf("receive the console: %w", err), unix.Close(fds[0]))
	}
	return os.NewFile(uintptr(fds[0]), "console"), nil
}

// resize sets the size of the terminal in characters.
func resize(console *os.File, rows, columns uint16) error {
	raw, err := console.SyscallConn()
	if err != nil {
		return fmt.Errorf("resize the terminal: %w", err)
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	if err = errors.Join(err, ioctlErr); err != nil {
		return fmt.Errorf("resize the terminal: %w", err)
	}
	return nil
}
