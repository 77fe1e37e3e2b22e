package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/caller"
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
// The library tells a call nothing of its connection but the context that it was
// served with, so that each connection is served by itself.
func (d doors) untilClosed(server *ttrpc.Server) func(context.Context, net.Listener) error {
	return func(ctx context.Context, l net.Listener) error {
		var each sync.WaitGroup
		accepted := make(chan error, 1)
		go func() { accepted <- d.accept(ctx, server, l, &each) }()
		var err error
		select {
		case err = <-accepted:
			err = fmt.Errorf("serve %s: %w", l.Addr(), err)
		case <-ctx.Done():
			err = l.Close()
			if ended := <-accepted; !errors.Is(ended, net.ErrClosed) {
				err = errors.Join(err, ended)
			}
		}
		err = errors.Join(err, server.Close())
		each.Wait()
		return err
	}
}

func (d doors) accept(ctx context.Context, server *ttrpc.Server, l net.Listener, each *sync.WaitGroup) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		socket, ok := conn.(*net.UnixConn)
		if !ok {
			return errors.Join(errors.New("not a unix socket"), conn.Close())
		}
		through := caller.Through(ctx, true, func() (caller.Caller, error) { return d.finder.Unix(socket) })
		each.Go(func() {
			one := &soleConn{conn: conn, addr: l.Addr(), closed: make(chan struct{})}
			_ = server.Serve(through, one) // ends with the connection or the server
			_ = conn.Close()               // a server that is closed accepts none
		})
	}
}

// soleConn is a listener with one connection, whose end is its own.
type soleConn struct {
	conn   net.Conn // nil once accepted
	addr   net.Addr
	closed chan struct{}
	once   sync.Once
}

// Accept returns the connection, and then waits for its end.
func (o *soleConn) Accept() (net.Conn, error) {
	if c := o.conn; c != nil {
		o.conn = nil
		return ending{c, o}, nil
	}
	<-o.closed
	return nil, net.ErrClosed
}

// Close ends the wait; the connection is the server's.
func (o *soleConn) Close() error {
	o.once.Do(func() { close(o.closed) })
	return nil
}

// Addr is that of the listener that had the connection.
func (o *soleConn) Addr() net.Addr { return o.addr }

type ending struct {
	net.Conn
	listener *soleConn
}

func (e ending) Close() error { return errors.Join(e.Conn.Close(), e.listener.Close()) }
