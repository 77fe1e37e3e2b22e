package agent

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
)

// answers is a listener that knows how many requests of its connections wait for
// their answer. The library's own graceful end cannot tell: it marks a connection
// busy only when it next sends something, so a call under way may look idle and
// lose its answer, that of DestroySandbox above all.
//
// It counts messages of the wire (ttrpc: length, stream, type and flags in ten
// bytes, then the payload). Every request of the Kata protocol has one answer.
type answers struct {
	net.Listener

	mu      sync.Mutex
	waiting int
	changed chan struct{} // closed and replaced when waiting falls to 0
}

func newAnswers(l net.Listener) *answers {
	return &answers{Listener: l, changed: make(chan struct{})}
}

// Accept returns a connection whose messages are counted.
func (a *answers) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{Conn: conn, answers: a}, nil
}

// sent waits until every request received so far is answered, or ctx is done.
func (a *answers) sent(ctx context.Context) error {
	for {
		a.mu.Lock()
		waiting, changed := a.waiting, a.changed
		a.mu.Unlock()
		if waiting == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *answers) add(n int) {
	if n == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting += n
	if a.waiting == 0 {
		close(a.changed)
		a.changed = make(chan struct{})
	}
}

// countedConn counts requests as they are read and answers once they are written.
type countedConn struct {
	net.Conn
	answers *answers
	in, out frames // each used by one goroutine of the library

	mu      sync.Mutex
	waiting int // of this connection: what a closed one will never answer
	closed  bool
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.count(c.in.begun(p[:n]))
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.count(-c.out.ended(p[:n]))
	return n, err
}

func (c *countedConn) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.answers.add(-c.waiting)
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

func (c *countedConn) count(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.waiting += n
		c.answers.add(n)
	}
}

// headerSize is that of a message's header; its first four bytes are the length
// of the payload.
const headerSize = 10

// frames follows a stream of messages given in pieces of any size.
type frames struct {
	header  [headerSize]byte
	have    int    // bytes of the header
	payload uint32 // bytes of the payload still to come
}

// begun returns how many messages begin in p: how many headers end in it.
func (f *frames) begun(p []byte) int { begun, _ := f.feed(p); return begun }

// ended returns how many messages end in p.
func (f *frames) ended(p []byte) int { _, ended := f.feed(p); return ended }

func (f *frames) feed(p []byte) (begun, ended int) {
	for len(p) > 0 {
		if f.have < headerSize {
			n := copy(f.header[f.have:], p)
			f.have, p = f.have+n, p[n:]
			if f.have < headerSize {
				return begun, ended
			}
			begun++
			f.payload = binary.BigEndian.Uint32(f.header[:4])
		}
		n := min(uint64(f.payload), uint64(len(p)))
		f.payload, p = f.payload-uint32(n), p[n:]
		if f.payload == 0 {
			ended++
			f.have = 0
		}
	}
	return begun, ended
}
