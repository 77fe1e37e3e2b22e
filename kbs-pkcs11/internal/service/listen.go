package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// ErrServed says that another process serves at the socket.
var ErrServed = errors.New("another process serves there")

// Listen makes the socket with mode 0600, in place of one that a process left
// behind. Connections of other users than our own are closed at once: the mode
// keeps them out, but a folder on a strange file system may not.
//
// It sets the umask of the process for a moment, so it must not run beside
// what makes files.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if err := clearAway(ctx, path); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	mask := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, err
	}
	return owned{l.(*net.UnixListener)}, nil
}

func clearAway(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return errors.New("there is a file that is no socket")
	}
	if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return ErrServed
	}
	return os.Remove(path)
}

// owned accepts connections of our own user alone.
type owned struct{ *net.UnixListener }

func (l owned) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(c); err == nil && uid == uint32(os.Geteuid()) {
			return c, nil
		}
		_ = c.Close()
	}
}

// peer asks the kernel whose process connected.
func peer(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	ask := func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}
	if outer := raw.Control(ask); outer != nil {
		return 0, outer
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
