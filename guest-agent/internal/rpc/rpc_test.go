package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// desk is a service with a method of every kind.
type desk struct {
	release chan struct{} // closed to let what waits go on
	waiting chan struct{} // gets a value from each that waits
	ended   chan error    // gets the context's end from each whose connection ended
}

func newDesk() *desk {
	return &desk{release: make(chan struct{}), waiting: make(chan struct{}, 2*maxCalls), ended: make(chan error, 2*maxCalls)}
}

func (d *desk) services() []Service {
	return []Service{{Name: "test.Desk", Methods: []Method{
		Unary("Echo", d.echo),
		Unary("Quick", d.echo).Quick(),
		Unary("Late", d.late),
		Unary("Deaf", d.deaf),
		Unary("Fail", d.fail),
		Unary("Panic", func(context.Context, *emptypb.Empty) (*emptypb.Empty, error) { panic("the secret is 42") }),
		Unary("None", func(context.Context, *emptypb.Empty) (*emptypb.Empty, error) { return nil, nil }),
		Unary("Empty", func(context.Context, *emptypb.Empty) (*emptypb.Empty, error) { return &emptypb.Empty{}, nil }),
		Unary("Deadline", d.deadline),
		Unary("Huge", func(context.Context, *emptypb.Empty) (*agent.ReadStreamResponse, error) {
			return &agent.ReadStreamResponse{Data: make([]byte, maxMessage)}, nil
		}),
		Bytes("Read", 1, d.read),
		Bytes("LateRead", 1, d.lateRead),
		Bytes("Liar", 1, func(context.Context, *emptypb.Empty, *Call) (int, error) { return 1 << 20, nil }),
	}}}
}

func (d *desk) echo(_ context.Context, req *agent.WriteStreamRequest) (*agent.ReadStreamResponse, error) {
	return &agent.ReadStreamResponse{Data: req.Data}, nil
}

func (d *desk) late(ctx context.Context, req *agent.WriteStreamRequest) (*agent.ReadStreamResponse, error) {
	return d.wait(ctx, &agent.ReadStreamResponse{Data: req.Data})
}

func (d *desk) wait(ctx context.Context, resp *agent.ReadStreamResponse) (*agent.ReadStreamResponse, error) {
	d.waiting <- struct{}{}
	select {
	case <-d.release:
		return resp, nil
	case <-ctx.Done():
		d.ended <- ctx.Err()
		return nil, ctx.Err()
	}
}

// deaf does not hear that its context has ended.
func (d *desk) deaf(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	d.waiting <- struct{}{}
	<-d.release
	return &emptypb.Empty{}, nil
}

// fail returns the error that is asked for: ExecId tells which.
func (d *desk) fail(_ context.Context, req *agent.ReadStreamRequest) (*emptypb.Empty, error) {
	switch req.ExecId {
	case "plain":
		return nil, errors.New("plain")
	case "wrapped":
		return nil, fmt.Errorf("around: %w", status.Error(codes.Code(req.Len), "inside"))
	case "canceled":
		return nil, context.Canceled
	case "unreadable":
		return nil, status.Error(codes.NotFound, "\xff\xfe")
	case "endless":
		return nil, status.Error(codes.NotFound, strings.Repeat("x", maxMessage))
	case "detailed":
		st, err := status.New(codes.NotFound, "a word").WithDetails(&agent.ReadStreamResponse{Data: make([]byte, maxMessage)})
		return nil, errors.Join(err, st.Err())
	}
	return nil, status.Error(codes.Code(req.Len), req.ExecId)
}

func (d *desk) deadline(ctx context.Context, _ *emptypb.Empty) (*agent.WaitProcessResponse, error) {
	at, ok := ctx.Deadline()
	if !ok {
		return &agent.WaitProcessResponse{Status: -1}, nil
	}
	return &agent.WaitProcessResponse{Status: int32(time.Until(at).Round(time.Second).Seconds())}, nil
}

// read answers Len bytes that a reader can tell from others.
func (d *desk) read(_ context.Context, req *agent.ReadStreamRequest, c *Call) (int, error) {
	if req.ExecId != "" {
		return 0, status.Error(codes.NotFound, req.ExecId)
	}
	return copy(c.Room(int(req.Len)), pattern(int(req.Len))), nil
}

func (d *desk) lateRead(ctx context.Context, req *agent.ReadStreamRequest, c *Call) (int, error) {
	copy(c.Room(10), "not this") // was there, then it was not
	c.Wait()
	if _, err := d.wait(ctx, nil); err != nil {
		return 0, err
	}
	return d.read(ctx, req, c)
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + n)
	}
	return p
}

// open serves a desk on a socket; the server is closed with the test.
func open(t testing.TB, d *desk, cfg Config) (*Server, string) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(cfg, d.services()...)
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

// dial is the library's client.
func dial(t testing.TB, socket string) *ttrpc.Client {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func read(ctx context.Context, c *ttrpc.Client, method string, n int) error {
	var resp agent.ReadStreamResponse
	if err := c.Call(ctx, "test.Desk", method, &agent.ReadStreamRequest{Len: uint32(n)}, &resp); err != nil {
		return err
	}
	if !bytes.Equal(resp.Data, pattern(n)) {
		return fmt.Errorf("%d bytes came for %d, or others", len(resp.Data), n)
	}
	return nil
}

// sizes around every border there is in a frame.
var sizes = []int{0, 1, 127, 128, smallRoom - headroom, smallRoom, readSize, 16383, 16384, 32 << 10, largeRoom - headroom, largeRoom, 1 << 20, 3 << 20}

func TestAnswersAsTheLibraryDoes(t *testing.T) {
	_, socket := open(t, newDesk(), Config{})
	c := dial(t, socket)
	for _, n := range sizes {
		if err := read(t.Context(), c, "Read", n); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		for _, method := range []string{"Echo", "Quick"} {
			var resp agent.ReadStreamResponse
			if err := c.Call(t.Context(), "test.Desk", method, &agent.WriteStreamRequest{Data: pattern(n)}, &resp); err != nil || !bytes.Equal(resp.Data, pattern(n)) {
				t.Errorf("%s of %d bytes: %v", method, n, err)
			}
		}
	}
	if err := c.Call(t.Context(), "test.Desk", "Empty", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	_, socket := open(t, newDesk(), Config{})
	c := dial(t, socket)
	fail := func(what string) *agent.ReadStreamRequest {
		return &agent.ReadStreamRequest{ExecId: what, Len: uint32(codes.PermissionDenied)}
	}
	for name, test := range map[string]struct {
		service, method string
		req             any
		code            codes.Code
		text            string
	}{
		"as told":       {"test.Desk", "Fail", fail("X is blocked by policy"), codes.PermissionDenied, "X is blocked by policy"},
		"wrapped":       {"test.Desk", "Fail", fail("wrapped"), codes.PermissionDenied, "inside"},
		"no status":     {"test.Desk", "Fail", fail("plain"), codes.Unknown, "plain"},
		"canceled":      {"test.Desk", "Fail", fail("canceled"), codes.Canceled, "context canceled"},
		"no text":       {"test.Desk", "Fail", fail("unreadable"), codes.NotFound, "\uFFFD"},
		"endless":       {"test.Desk", "Fail", fail("endless"), codes.NotFound, "xxx"},
		"large details": {"test.Desk", "Fail", fail("detailed"), codes.NotFound, "a word"},
		"of a read":     {"test.Desk", "Read", fail("gone"), codes.NotFound, "gone"},
		"no service":    {"test.None", "Fail", fail(""), codes.Unimplemented, "service test.None"},
		"no method":     {"test.Desk", "Nothing", fail(""), codes.Unimplemented, "method Nothing"},
		"a bug":         {"test.Desk", "Panic", &emptypb.Empty{}, codes.Internal, "internal error"},
		"no answer":     {"test.Desk", "None", &emptypb.Empty{}, codes.Internal, "no answer"},
		"more than was": {"test.Desk", "Liar", &emptypb.Empty{}, codes.Unknown, "not in the room"},
		"no message":    {"test.Desk", "Fail", &agent.ReadStreamResponse{Data: []byte{0xff}}, codes.Internal, "unmarshalling"},
		"too large":     {"test.Desk", "Huge", &emptypb.Empty{}, codes.ResourceExhausted, "exceed maximum"},
	} {
		err := c.Call(t.Context(), test.service, test.method, test.req, &emptypb.Empty{})
		if status.Code(err) != test.code || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %.200v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "42") {
			t.Errorf("%s: the peer sees %v", name, err)
		}
	}
	if err := read(t.Context(), c, "Read", 100); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestTimeLimits(t *testing.T) {
	d := newDesk()
	_, socket := open(t, d, Config{})
	c := dial(t, socket)
	for want, ctx := range map[int32]func() (context.Context, context.CancelFunc){
		-1: func() (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) },
		77: func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), 77*time.Second) },
	} {
		ctx, cancel := ctx()
		var resp agent.WaitProcessResponse
		if err := c.Call(ctx, "test.Desk", "Deadline", &emptypb.Empty{}, &resp); err != nil || resp.Status < want-3 || resp.Status > want {
			t.Errorf("%d seconds were left of %d, %v", resp.Status, want, err)
		}
		cancel()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "test.Desk", "Late", &agent.WriteStreamRequest{}, &agent.ReadStreamResponse{}); err == nil {
		t.Error("a call has no end")
	}
	if err := <-d.ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the call ended with %v", err)
	}
}

// Calls of all kinds at the same time on one connection, which is shared, and on
// others.
func TestManyAtOnce(t *testing.T) {
	_, socket := open(t, newDesk(), Config{})
	var wg sync.WaitGroup
	for range 2 {
		c := dial(t, socket)
		for w := range 16 {
			wg.Go(func() {
				for i := range 60 {
					n := sizes[(i+w)%12]
					if err := read(t.Context(), c, "Read", n); err != nil {
						t.Errorf("%d bytes: %v", n, err)
						return
					}
					var resp agent.ReadStreamResponse
					if err := c.Call(t.Context(), "test.Desk", "Echo", &agent.WriteStreamRequest{Data: pattern(i)}, &resp); err != nil || !bytes.Equal(resp.Data, pattern(i)) {
						t.Errorf("echo: %v", err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
}

// However many calls wait, others are answered, on the same connection too.
func TestWhoWaitsDelaysNobody(t *testing.T) {
	d := newDesk()
	_, socket := open(t, d, Config{})
	c := dial(t, socket)
	const waiting = 200
	late := make(chan error, 2*waiting)
	for range waiting {
		go func() {
			late <- c.Call(t.Context(), "test.Desk", "Late", &agent.WriteStreamRequest{}, &agent.ReadStreamResponse{})
		}()
		go func() { late <- read(t.Context(), c, "LateRead", 1000) }()
	}
	for range 2 * waiting {
		<-d.waiting
	}
	for _, n := range sizes {
		if err := read(t.Context(), c, "Read", n); err != nil {
			t.Error(err)
		}
	}
	close(d.release)
	for range 2 * waiting {
		if err := <-late; err != nil {
			t.Error(err)
		}
	}
}

// A connection that ends ends its calls, and no other's.
func TestTheEndOfAConnection(t *testing.T) {
	d := newDesk()
	_, socket := open(t, d, Config{})
	c, other := dial(t, socket), dial(t, socket)
	done := make(chan error, 3)
	go func() {
		done <- c.Call(context.Background(), "test.Desk", "Late", &agent.WriteStreamRequest{}, &agent.ReadStreamResponse{})
	}()
	go func() { done <- read(context.Background(), c, "LateRead", 10) }()
	go func() { done <- read(context.Background(), other, "LateRead", 10) }()
	for range 3 {
		<-d.waiting
	}
	_ = c.Close()
	for range 2 {
		if err := <-d.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a call ended with %v", err)
		}
		if err := <-done; err == nil {
			t.Error("a call without connection was answered")
		}
	}
	close(d.release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An interceptor is around every call that could be read, and can keep it from
// being carried out.
func TestInterceptor(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	_, socket := open(t, newDesk(), Config{Intercept: func(ctx context.Context, c *Call) error {
		mu.Lock()
		seen[c.Method()]++
		mu.Unlock()
		if req, ok := c.Request().(*agent.WriteStreamRequest); ok && string(req.Data) == "no" {
			return status.Error(codes.PermissionDenied, "not this")
		}
		c.Wait()
		return c.Do(ctx)
	}})
	c := dial(t, socket)
	if err := read(t.Context(), c, "Read", 1000); err != nil {
		t.Error(err)
	}
	err := c.Call(t.Context(), "test.Desk", "Echo", &agent.WriteStreamRequest{Data: []byte("no")}, &agent.ReadStreamResponse{})
	if status.Code(err) != codes.PermissionDenied {
		t.Error(err)
	}
	err = c.Call(t.Context(), "test.Desk", "Echo", &agent.ReadStreamResponse{Data: []byte{0xff}}, &agent.ReadStreamResponse{})
	if status.Code(err) != codes.Internal {
		t.Error(err)
	}
	if len(seen) != 2 || seen["/test.Desk/Read"] != 1 || seen["/test.Desk/Echo"] != 1 {
		t.Errorf("seen: %v", seen)
	}
}

// What the other end of a connection is, its calls can ask.
func TestServeEach(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	type key struct{}
	s := NewServer(Config{}, Service{Name: "test.Who", Methods: []Method{
		Unary("Am", func(ctx context.Context, _ *emptypb.Empty) (*agent.WaitProcessResponse, error) {
			n, _ := ctx.Value(key{}).(int32)
			return &agent.WaitProcessResponse{Status: n}, nil
		}),
	}})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	conns := int32(0)
	go func() {
		served <- s.ServeEach(ctx, l, func(ctx context.Context, _ net.Conn) (context.Context, error) {
			if conns++; conns == 2 {
				return nil, errors.New("a stranger")
			}
			return context.WithValue(ctx, key{}, conns), nil
		})
	}()
	for i := int32(1); i <= 3; i++ {
		var resp agent.WaitProcessResponse
		err := dial(t, l.Addr().String()).Call(t.Context(), "test.Who", "Am", &emptypb.Empty{}, &resp)
		if i == 2 && err == nil || i != 2 && (err != nil || resp.Status != i) {
			t.Errorf("connection %d is %d, %v", i, resp.Status, err)
		}
	}
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := net.Dial("unix", l.Addr().String()); err == nil {
		t.Error("the listener is open")
	}
}

// brokenListener fails after one connection.
type brokenListener struct{ conns chan net.Conn }

func (b *brokenListener) Accept() (net.Conn, error) {
	if c, ok := <-b.conns; ok {
		return c, nil
	}
	return nil, io.ErrUnexpectedEOF
}
func (b *brokenListener) Close() error   { return nil }
func (b *brokenListener) Addr() net.Addr { return &net.UnixAddr{} }

// A listener that fails takes its connections with it.
func TestAListenerThatFails(t *testing.T) {
	d := newDesk()
	here, there := net.Pipe()
	l := &brokenListener{make(chan net.Conn, 1)}
	l.conns <- there
	s := NewServer(Config{}, d.services()...)
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), l) }()
	c := ttrpc.NewClient(here)
	called := make(chan error, 1)
	go func() { called <- read(context.Background(), c, "LateRead", 10) }()
	<-d.waiting
	close(l.conns)
	if err := <-served; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	if err := <-called; err == nil {
		t.Error("a call without connection was answered")
	}
}
