package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// conn is a connection that is served.
type conn struct {
	s      *Server
	peer   net.Conn
	ctx    context.Context //nolint:containedctx // of the connection, and so of its calls
	cancel context.CancelFunc
	calls  sync.WaitGroup // goroutines of the connection

	// The leader's alone.
	in   *frameReader
	last uint32 // stream

	mu       sync.Mutex
	waiting  int // calls that are not answered
	held     int // bytes of their requests
	draining bool

	writing sync.Mutex
	until   time.Time // the deadline of writes
}

// lead reads the connection and serves what it reads, until it ends or another
// goroutine leads.
func (c *conn) lead() {
	k := &Call{conn: c, leads: true}
	for k.leads {
		ctx, err := c.next(k)
		if err != nil {
			c.end(err)
			return
		}
		k.serve(ctx)
	}
}

// next reads frames until there is a call to serve. What is no call is answered
// here.
func (c *conn) next(k *Call) (context.Context, error) {
	for {
		h, payload, err := c.in.next()
		if err != nil && !errors.Is(err, errOversize) {
			return nil, err
		}
		k.stream = h.stream
		st := c.check(h, err)
		if st == nil && h.kind != kindRequest {
			continue // of a later version of the protocol
		}
		if st == nil {
			st = c.open(k, h, payload)
		}
		if st == nil {
			return c.timed(k), nil
		}
		k.refuse(st)
		k.room.put()
		*k = Call{conn: c, leads: true}
	}
}

// check judges a frame (ttrpc, "Message Frame").
func (c *conn) check(h header, oversize error) *status.Status {
	switch {
	case oversize != nil:
		return status.Newf(codes.ResourceExhausted, "message length %d exceed maximum message size of %d", h.length, maxMessage)
	case h.stream%2 != 1:
		return status.New(codes.InvalidArgument, "StreamID must be odd for client initiated streams")
	case h.kind == kindData:
		return status.New(codes.InvalidArgument, "StreamID is no longer active: no streams are served")
	case h.kind == kindRequest && h.stream <= c.last:
		return status.New(codes.InvalidArgument, "StreamID cannot be re-used and must increment")
	}
	return nil
}

// open reads a request and makes a call of it.
func (c *conn) open(k *Call, h header, payload []byte) *status.Status {
	c.last = h.stream
	if h.flags&(flagRemoteOpen|flagRemoteClosed) != 0 {
		return status.New(codes.Unimplemented, "streams are not served")
	}
	r, err := parseRequest(payload)
	if err != nil {
		return status.Newf(codes.InvalidArgument, "unmarshal request error: %v", err)
	}
	methods, ok := c.s.methods[string(r.service)]
	if !ok {
		return status.Newf(codes.Unimplemented, "service %.256s", r.service)
	}
	if k.method, ok = methods[string(r.method)]; !ok {
		return status.Newf(codes.Unimplemented, "method %.256s", r.method)
	}
	k.size, k.limit = len(payload), r.timeout
	if !c.enter(k.size) {
		return status.New(codes.ResourceExhausted, "too many calls are being served")
	}
	k.request = k.method.request()
	if err := proto.Unmarshal(r.payload, k.request); err != nil {
		c.leave(k.size)
		return status.Newf(codes.Internal, "ttrpc: error unmarshalling payload: %v", err)
	}
	return nil
}

// timed returns the context of a call that was opened.
func (c *conn) timed(k *Call) context.Context {
	if k.limit == 0 {
		return c.ctx
	}
	var ctx context.Context
	ctx, k.cancel = context.WithTimeout(c.ctx, k.limit)
	return ctx
}

// enter counts a call, or refuses one too many.
func (c *conn) enter(size int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting >= maxCalls || c.held+size > maxHeld {
		return false
	}
	c.waiting++
	c.held += size
	return true
}

// leave forgets a call that was answered.
func (c *conn) leave(size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting--
	c.held -= size
	if c.draining && c.waiting == 0 {
		_ = c.peer.Close() // the leader notices
	}
}

// drain closes the connection once no call of it waits for its answer.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.waiting == 0 {
		_ = c.peer.Close()
	}
}

// write sends a frame. A peer that does not take it in time, or is gone, loses
// its connection.
func (c *conn) write(frame []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	// A deadline is a timer of its own to set: not for each frame.
	if now := time.Now(); c.until.Sub(now) < writeTimeout*3/4 {
		c.until = now.Add(writeTimeout)
		_ = c.peer.SetWriteDeadline(c.until) // what has none is waited for
	}
	if _, err := c.peer.Write(frame); err != nil {
		_ = c.peer.Close()
	}
}

// end is the end of the connection: of its calls too.
func (c *conn) end(why error) {
	c.cancel()
	_ = c.peer.Close()
	if errors.Is(why, errReserved) || isTimeout(why) {
		c.s.log.Warn("a connection was ended", slog.Any("err", why))
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
