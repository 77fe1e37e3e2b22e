package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// A call that ends the agent is answered, whatever the library thinks of its
// connection.
func TestTheLastCallIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rpc, err := ttrpc.NewServer()
		if err != nil {
			t.Fatal(err)
		}
		finish := make(chan struct{})
		rpc.Register("test", map[string]ttrpc.Method{"Last": func(_ context.Context, unmarshal func(any) error) (any, error) {
			<-finish
			return &emptypb.Empty{}, unmarshal(&emptypb.Empty{})
		}})
		here, there := net.Pipe()
		counted := newAnswers(newOneConn(there))
		served := make(chan error, 1)
		go func() { served <- rpc.Serve(t.Context(), counted) }()
		client := ttrpc.NewClient(here)
		called := make(chan error, 1)
		go func() { called <- client.Call(t.Context(), "test", "Last", &emptypb.Empty{}, &emptypb.Empty{}) }()
		synctest.Wait() // the call is under way
		ended := make(chan error, 1)
		go func() { ended <- stop(t.Context(), rpc, counted) }()
		synctest.Wait() // and so is the end
		close(finish)
		if err := <-called; err != nil {
			t.Errorf("the last call got %v", err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ttrpc.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// A call that never ends does not keep the agent.
func TestTheEndDoesNotWaitForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rpc, err := ttrpc.NewServer()
		if err != nil {
			t.Fatal(err)
		}
		rpc.Register("test", map[string]ttrpc.Method{"Stuck": func(ctx context.Context, _ func(any) error) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		here, there := net.Pipe()
		counted := newAnswers(newOneConn(there))
		served := make(chan error, 1)
		go func() { served <- rpc.Serve(t.Context(), counted) }()
		client := ttrpc.NewClient(here)
		called := make(chan error, 1)
		go func() { called <- client.Call(t.Context(), "test", "Stuck", &emptypb.Empty{}, &emptypb.Empty{}) }()
		synctest.Wait()
		begun := time.Now()
		if err := stop(t.Context(), rpc, counted); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != answerTimeout {
			t.Errorf("the end took %s", took)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if err := <-called; err == nil {
			t.Error("a call without end was answered")
		}
		if err := <-served; !errors.Is(err, ttrpc.ErrServerClosed) {
			t.Error(err)
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

// A connection that goes away takes its waiting requests with it.
func TestAClosedConnectionWaitsForNothing(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	a := newAnswers(nil)
	c := &countedConn{Conn: here, answers: a}
	go func() { _, _ = there.Write(message(3)) }()
	if _, err := c.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	if a.waiting != 1 {
		t.Fatalf("%d requests wait", a.waiting)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if err := a.sent(t.Context()); err != nil || a.waiting != 0 {
		t.Errorf("%d requests wait, %v", a.waiting, err)
	}
}

// Messages are counted the same however the stream is cut.
func TestFramesOfAnyPieces(t *testing.T) {
	var stream []byte
	for _, payload := range []int{0, 1, 9, 10, 11, 0, 300} {
		stream = append(stream, message(payload)...)
	}
	for size := 1; size <= len(stream); size++ {
		var f frames
		begun, ended := 0, 0
		for at := 0; at < len(stream); at += size {
			b, e := f.feed(stream[at:min(at+size, len(stream))])
			begun, ended = begun+b, ended+e
		}
		if begun != 7 || ended != 7 {
			t.Fatalf("pieces of %d: %d begun, %d ended", size, begun, ended)
		}
	}
}

func message(payload int) []byte {
	m := make([]byte, headerSize+payload)
	binary.BigEndian.PutUint32(m, uint32(payload))
	return m
}
