package agent

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/caller"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/fair"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
)

// untilStopped serves gRPC until ctx is done; calls under way are ended with it.
func untilStopped(server *grpc.Server) func(context.Context, net.Listener) error {
	return func(ctx context.Context, l net.Listener) error {
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		select {
		case err := <-served:
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		case <-ctx.Done():
			server.Stop()
		}
		if err := <-served; !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	}
}

// untilClosed serves ttrpc until ctx is done; calls under way are ended with it.
func (d doors) untilClosed(server *rpc.Server) func(context.Context, net.Listener) error {
	return func(ctx context.Context, l net.Listener) error {
		if err := server.ServeEach(ctx, l, d.throughSocket); !errors.Is(err, ctx.Err()) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	}
}

// throughSocket tells calls who has connected.
func (d doors) throughSocket(ctx context.Context, conn net.Conn) (context.Context, error) {
	socket, ok := itself(conn).(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a unix socket")
	}
	return caller.Through(ctx, true, func() (caller.Caller, error) { return d.finder.Unix(socket) }), nil
}

// itself is a connection without what is around it.
func itself(conn net.Conn) net.Conn {
	if around, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return around.NetConn()
	}
	return conn
}

// maxConns bounds the connections of one side door.
const maxConns = 256

// share lets no container, nor anybody else, keep the others from a door.
func (d doors) share(l net.Listener, total int) net.Listener {
	return fair.Listen(l, total, d.party, d.log)
}

// halfClosed reports whether the other side has said that no more comes.
func halfClosed(c *net.TCPConn) (closed bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	const established = 1 // TCP_ESTABLISHED (Linux, include/net/tcp_states.h)
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err != nil || info.State != established
	})
	return closed || err != nil
}

// party is who shares a limit: the processes of one container, as far as they are
// known.
func (d doors) party(conn net.Conn) string {
	switch c := conn.(type) {
	case *net.UnixConn:
		return d.finder.Party(d.finder.Unix(c))
	case *net.TCPConn:
		local, _ := c.LocalAddr().(*net.TCPAddr)
		remote, _ := c.RemoteAddr().(*net.TCPAddr)
		if halfClosed(c) {
			break // nobody is looked for: it is about to end
		}
		return d.crowd.TCP(local.AddrPort(), remote.AddrPort())
	}
	return d.finder.Party(caller.Caller{}, errors.New("not known to be anybody's"))
}
