package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/serialport"
)

// address is where the runtime reaches the agent (kata-agent 1.3).
type address struct {
	network string // "unix", "vsock", "tcp" or "virtio-serial"
	path    string // of a unix socket, "@name" is an abstract one; HOST:PORT of TCP; name of a port
	cid     uint32 // unix.VMADDR_CID_ANY for any
	port    uint32
}

// parseAddress reads unix://PATH, unix://@NAME, virtio-serial://NAME, tcp://HOST:PORT and
// vsock://CID:PORT, where the CID -1 means any.
func parseAddress(s string) (address, error) {
	network, rest, ok := strings.Cut(s, "://")
	switch {
	case !ok:
	case network == "unix" && (strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "@")) && len(rest) > 1:
		return address{network: network, path: rest}, nil
	case network == networkSerial && rest != "" && !strings.Contains(rest, "/"):
		return address{network: network, path: rest}, nil
	case network == "tcp":
		host, port, err := net.SplitHostPort(rest)
		if err != nil || host != "" && net.ParseIP(host) == nil {
			break
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			break
		}
		return address{network: network, path: rest}, nil
	case network == "vsock":
		cid, port, ok := strings.Cut(rest, ":")
		if !ok {
			break
		}
		a := address{network: network, cid: unix.VMADDR_CID_ANY}
		if cid != "-1" {
			n, err := strconv.ParseUint(cid, 10, 32)
			if err != nil {
				break
			}
			a.cid = uint32(n)
		}
		n, err := strconv.ParseUint(port, 10, 32)
		if err != nil || n == 0 {
			break
		}
		a.port = uint32(n)
		return a, nil
	}
	return address{}, fmt.Errorf("address %q: want unix:///PATH, unix://@NAME, virtio-serial://NAME, vsock://CID:PORT or tcp://IP:PORT", s)
}

// networkSerial is the network of a virtio-serial port.
const networkSerial = "virtio-serial"

func (a address) listen(ctx context.Context) (net.Listener, error) {
	if a.network == networkSerial {
		l, err := serialport.Listen(a.path)
		if err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
		return l, nil
	}
	if a.network == "vsock" {
		l, err := vsock.ListenContextID(a.cid, a.port, nil)
		if err != nil {
			return nil, fmt.Errorf("listen on vsock port %d: %w", a.port, err)
		}
		return hostOnly{l}, nil
	}
	if a.network == "tcp" {
		return net.Listen("tcp", a.path)
	}
	if err := a.removeStale(ctx); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", a.path)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(a.path, "@") {
		if err := os.Chmod(a.path, 0o600); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// hostOnly is a vsock listener for the host. Where the kernel has vsock's loopback,
// a container can connect to the guest's own ports: it must not drive the agent.
type hostOnly struct{ net.Listener }

// Accept closes what comes from elsewhere.
func (h hostOnly) Accept() (net.Conn, error) {
	for {
		conn, err := h.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if from, ok := conn.RemoteAddr().(*vsock.Addr); ok && from.ContextID == vsock.Host {
			return conn, nil
		}
		_ = conn.Close()
	}
}

// removeStale removes the socket of an agent that is no more, and nothing else.
func (a address) removeStale(ctx context.Context) error {
	if strings.HasPrefix(a.path, "@") {
		return nil
	}
	fi, err := os.Lstat(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket", a.path)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", a.path)
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use by another process", a.path), conn.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(a.path)
}
