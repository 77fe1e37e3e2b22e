package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Call is one call that is being served, by one goroutine. It must not be used
// after its method has returned.
type Call struct {
	conn  *conn
	leads bool // its goroutine is the connection's leader

	// Of the request that is served.
	stream  uint32
	size    int           // of the message
	limit   time.Duration // 0 for none
	method  *Method
	request proto.Message
	cancel  context.CancelFunc // nil without a limit

	room   *room
	answer proto.Message
	n      int // bytes in the room
}

// Method is what is called, as in "/grpc.Health/Check".
func (c *Call) Method() string { return c.method.full }

// Request is what came with it.
func (c *Call) Request() proto.Message { return c.request }

// Do carries the call out, as an [Interceptor] does once at most.
func (c *Call) Do(ctx context.Context) (err error) {
	c.answer, c.n, err = c.method.carryOut(ctx, c)
	return err
}

// Room returns memory for size bytes of the answer of a [Bytes] method, until it
// is called again or the call waits. It is not empty memory.
func (c *Call) Room(size int) []byte {
	size = min(size, maxMessage-headroom)
	if c.room == nil || len(c.room.b) < size+headroom {
		c.room.put()
		c.room = getRoom(size)
	}
	return c.room.b[headroom : headroom+size]
}

// Wait says that the call is about to wait for something: others are served
// meanwhile, and the call holds no memory for its answer.
func (c *Call) Wait() {
	c.room.put()
	c.room = nil
	if c.leads {
		c.leads = false
		c.conn.calls.Go(c.conn.lead)
	}
}

// serve answers the call.
func (c *Call) serve(ctx context.Context) {
	c.method.under.Add(1)
	defer c.end()
	if !c.method.quick {
		c.Wait()
	}
	if err := c.run(ctx); err != nil {
		c.refuse(statusOf(err))
		return
	}
	if err := c.respond(); err != nil {
		c.refuse(statusOf(err))
	}
}

// run keeps a bug in one call from ending the process.
func (c *Call) run(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.conn.s.log.Error("a call panicked", slog.String("method", c.method.full), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = status.Error(codes.Internal, "internal error")
		}
	}()
	if around := c.conn.s.intercept; around != nil {
		return around(ctx, c)
	}
	return c.Do(ctx)
}

// respond sends what the method has answered.
func (c *Call) respond() error {
	if field := c.method.field; field != 0 {
		if c.n == 0 {
			c.Room(0)
		}
		if c.n < 0 || c.room == nil || headroom+c.n > len(c.room.b) {
			return fmt.Errorf("%d bytes are not in the room that there was", c.n)
		}
		return c.send(c.room.b[:headroom+c.n], field, fieldAnswer)
	}
	if c.answer == nil || !c.answer.ProtoReflect().IsValid() {
		return status.Error(codes.Internal, "there is no answer")
	}
	c.Room(0)
	body, err := c.room.appendMessage(c.answer)
	if err != nil {
		return err
	}
	return c.send(body, fieldAnswer)
}

// refuse sends a status in place of an answer.
func (c *Call) refuse(st *status.Status) {
	p := st.Proto()
	p.Message = readable(p.Message)
	c.Room(0)
	body, err := c.room.appendMessage(p)
	if err == nil {
		err = c.send(body, fieldStatus)
	}
	if err != nil { // of its details: the code is worth more than they are
		p.Details = nil
		if body, err = c.room.appendMessage(p); err == nil {
			err = c.send(body, fieldStatus)
		}
	}
	if err != nil {
		c.conn.s.log.Error("a refusal could not be sent", slog.Any("err", err))
	}
}

// send builds the frame and writes it. A connection that takes none is at its end,
// which is no error of this call.
func (c *Call) send(body []byte, within ...protowire.Number) error {
	f, err := frame(body, c.stream, within...)
	if err != nil {
		return err
	}
	c.conn.write(f)
	return nil
}

// end forgets the call.
func (c *Call) end() {
	if c.cancel != nil {
		c.cancel()
	}
	c.room.put()
	c.method.under.Add(-1)
	c.conn.leave(c.size)
	*c = Call{conn: c.conn, leads: c.leads}
}

// statusOf is what the peer is told of an error.
func statusOf(err error) *status.Status {
	if st, ok := status.FromError(err); ok && st.Code() != codes.OK {
		return st
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err)
	}
	return status.New(codes.Unknown, err.Error())
}
