package agent

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/caller"
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
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a unix socket")
	}
	return caller.Through(ctx, true, func() (caller.Caller, error) { return d.finder.Unix(socket) }), nil
}
