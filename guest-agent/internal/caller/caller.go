// Package caller finds out who is at the other end of a connection within the
// guest: which process, and which of the pod's containers it belongs to.
//
// Nothing a caller says is believed. Of a unix socket the kernel knows the
// process that connected (SO_PEERCRED). Of a TCP connection over loopback it
// knows which socket is the other end (/proc/net/tcp), and which processes hold
// that one (/proc/PID/fd). A process is in the container whose cgroups it is in;
// it cannot leave them without rights over the whole guest.
//
// The number of a process that has ended may be given to another one's, of another
// container's. So who ends before it is known where it belongs to is nobody: the
// process that connected a unix socket must live, and who holds the other end of a
// TCP connection must still hold it when its container is known.
//
// What cannot be told is an error, and so is what could be two containers: two
// containers that share a socket, or to which the host gave the same cgroup, are
// not told apart.
package caller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Container is one of the pod's.
type Container struct {
	ID   string
	Name string // in the pod, as the runtime says
	PID  int    // of its first process, in the agent's namespace
}

// Caller is a process of the guest.
type Caller struct {
	PID int
	UID uint32
	// Container is nil for a program of the guest itself.
	Container *Container
}

// Finder finds callers. It is safe for concurrent use.
type Finder struct {
	// Containers lists those that run.
	Containers func() []Container

	proc string // another place for /proc, in tests
}

func (f *Finder) dir() string {
	if f.proc == "" {
		return "/proc"
	}
	return f.proc
}

// Unix finds who connected a unix socket.
func (f *Finder) Unix(conn *net.UnixConn) (Caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	peer := -1
	var opt error
	if err := raw.Control(func(fd uintptr) {
		if cred, opt = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); opt == nil && cred.Pid > 0 {
			peer, opt = peerHandle(int(fd), int(cred.Pid))
		}
	}); err != nil {
		return Caller{}, err
	}
	if opt != nil {
		return Caller{}, fmt.Errorf("peer of a unix socket: %w", opt)
	}
	if cred.Pid <= 0 {
		return Caller{}, errors.New("the peer of the socket is in no namespace that can be seen from here")
	}
	defer func() { _ = unix.Close(peer) }()
	c := Caller{PID: int(cred.Pid), UID: cred.Uid}
	c.Container, err = f.containerOf(c.PID)
	if gone := alive(peer); gone != nil {
		return Caller{}, gone
	}
	return c, err
}

// peerHandle returns a handle to the process that connected a unix socket, as no
// other can have it (Linux 6.5). What an older kernel knows is who has the number now.
func peerHandle(socket, pid int) (int, error) {
	handle, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		handle, err = unix.PidfdOpen(pid, 0)
	}
	return handle, err
}

var errEnded = errors.New("the process that connected has ended")

// alive fails once the number of a process may be another's.
func alive(handle int) error {
	if err := unix.PidfdSendSignal(handle, 0, nil, 0); err != nil {
		return fmt.Errorf("%w: %w", errEnded, err)
	}
	return nil
}

// TCP finds who holds the other end of a connection over loopback: the one whose
// own address is remote, as the server sees it.
func (f *Finder) TCP(local, remote netip.AddrPort) (Caller, error) {
	inode, uid, err := f.socketOf(remote, local)
	if err != nil {
		return Caller{}, err
	}
	pids, err := f.holders(inode)
	if err != nil {
		return Caller{}, err
	}
	var found *Caller
	for _, pid := range pids {
		in, err := f.holderOf(pid, inode)
		if err != nil {
			return Caller{}, err
		}
		switch {
		case found == nil:
			found = &Caller{PID: pid, UID: uid, Container: in}
		case (found.Container == nil) != (in == nil), in != nil && found.Container.ID != in.ID:
			return Caller{}, errors.New("the connection is held by processes of several containers")
		}
	}
	if found == nil {
		return Caller{}, errors.New("no process holds the other end of the connection")
	}
	return *found, nil
}

// holderOf returns the container of a process that holds a socket, and still did
// when that was known. A handle keeps its number from having been another's meanwhile.
func (f *Finder) holderOf(pid int, inode uint64) (*Container, error) {
	lives := func() error { return nil }
	if f.proc == "" {
		handle, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errEnded, err)
		}
		defer func() { _ = unix.Close(handle) }()
		lives = func() error { return alive(handle) }
	}
	in, err := f.containerOf(pid)
	if err != nil {
		return nil, err
	}
	if !f.holds(pid, inode) {
		return nil, errors.New("the connection changed hands")
	}
	return in, lives()
}

// Party names those who are told from others where nobody has to be known for
// sure: for a limit on what one of them may have. It takes what Unix or TCP has
// returned. A container is a party. Of a process whose container cannot be told
// the pid namespace is one, or its user in the agent's own. All others are one
// together, so that nobody has more by being unknown.
func (f *Finder) Party(c Caller, err error) string {
	switch {
	case err == nil && c.Container != nil:
		return "container " + c.Container.ID
	case c.PID == 0:
		return unknown
	}
	its, err1 := os.Readlink(filepath.Join(f.dir(), strconv.Itoa(c.PID), "ns/pid"))
	own, err2 := os.Readlink(filepath.Join(f.dir(), "self/ns/pid"))
	switch {
	case err1 != nil || err2 != nil:
		return unknown
	case its != own:
		return its
	}
	return fmt.Sprintf("user %d", c.UID)
}

// door is what a connection is known to be; who is behind it is found when
// somebody wants to know.
type door struct {
	find   func() (Caller, error)
	rooted bool
}

type doorKey struct{}

// Through returns a context for the calls of one connection. rooted says that
// root alone could connect. find is called at most once.
func Through(ctx context.Context, rooted bool, find func() (Caller, error)) context.Context {
	return context.WithValue(ctx, doorKey{}, door{sync.OnceValues(find), rooted})
}

// From returns who asks. It is an error if the context is of no connection.
func From(ctx context.Context) (c Caller, rooted bool, err error) {
	d, ok := ctx.Value(doorKey{}).(door)
	if !ok {
		return Caller{}, false, errors.New("the request came through no known door")
	}
	c, err = d.find()
	return c, d.rooted, err
}
