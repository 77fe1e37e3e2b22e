package agent

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
)

// serving is a server with one method, and a call of it under way.
func serving(t *testing.T, method func(context.Context, *emptypb.Empty) (*emptypb.Empty, error)) (calls *rpc.Server, called, served chan error) {
	t.Helper()
	calls = rpc.NewServer(rpc.Config{}, rpc.Service{Name: "test", Methods: []rpc.Method{rpc.Unary("Last", method)}})
	here, there := net.Pipe()
	called, served = make(chan error, 1), make(chan error, 1)
	go func() { served <- calls.Serve(context.Background(), newOneConn(there)) }()
	client := ttrpc.NewClient(here)
	go func() { called <- client.Call(t.Context(), "test", "Last", &emptypb.Empty{}, &emptypb.Empty{}) }()
	synctest.Wait()
	return calls, called, served
}

// A call that ends the agent is answered.
func TestTheLastCallIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		calls, called, served := serving(t, func(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
			<-finish
			return &emptypb.Empty{}, nil
		})
		ended := make(chan error, 1)
		go func() { ended <- stop(t.Context(), calls) }()
		synctest.Wait() // the end is under way too
		close(finish)
		if err := <-called; err != nil {
			t.Errorf("the last call got %v", err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, rpc.ErrClosed) {
			t.Error(err)
		}
	})
}

// A call that never ends does not keep the agent.
func TestTheEndDoesNotWaitForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, called, served := serving(t, func(ctx context.Context, _ *emptypb.Empty) (*emptypb.Empty, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		begun := time.Now()
		if err := stop(t.Context(), calls); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != answerTimeout {
			t.Errorf("the end took %s", took)
		}
		if err := <-called; err == nil {
			t.Error("a call without end was answered")
		}
		if err := <-served; !errors.Is(err, rpc.ErrClosed) {
			t.Error(err)
		}
	})
}

// Nor does one that does not even hear that it is to end.
func TestTheEndDoesNotWaitForTheDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		calls, called, served := serving(t, func(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
			<-finish
			return &emptypb.Empty{}, nil
		})
		begun := time.Now()
		if err := stop(t.Context(), calls); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, rpc.ErrClosed) {
			t.Error(err)
		}
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("the end took %s", took)
		}
		close(finish)
		if err := <-called; err == nil {
			t.Error("a call was answered after the end")
		}
	})
}

// oneConn is a listener with one connection.
type oneConn struct {
	conns chan net.Conn
	once  sync.Once
}

func newOneConn(c net.Conn) *oneConn {
	l := &oneConn{conns: make(chan net.Conn, 1)}
	l.conns <- c
	return l
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c, ok := <-l.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { l.once.Do(func() { close(l.conns) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "one", Net: "unix"} }
