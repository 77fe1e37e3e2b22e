package limit

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// grace is how long a body may take to get going, and longest how long the
// slowest one may take.
const (
	grace   = 10 * time.Second
	longest = 2 * time.Minute
)

// Body returns the body of a request that must arrive at no less than the
// given rate, in bytes a second: a caller that sends a byte now and then
// would keep a connection and its buffers for as long as it likes.
func Body(w http.ResponseWriter, body io.ReadCloser, rate int) io.ReadCloser {
	return &paced{ReadCloser: body, conn: http.NewResponseController(w), rate: rate, start: time.Now()}
}

type paced struct {
	io.ReadCloser
	conn  *http.ResponseController
	rate  int
	start time.Time
	n     int64
	set   bool
}

// Read reads until the time for what came so far is over.
func (p *paced) Read(b []byte) (int, error) {
	allowed := min(grace+time.Duration(p.n)*time.Second/time.Duration(p.rate), longest)
	p.set = p.conn.SetReadDeadline(p.start.Add(allowed)) == nil
	n, err := p.ReadCloser.Read(b)
	p.n += int64(n)
	// The deadline was for the body, not for what comes after it. A body that has
	// not ended keeps it: the server reads what is left before it answers.
	if errors.Is(err, io.EOF) && p.set {
		_ = p.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

// Connections limits the connections that are open at once over all listeners
// that share it: the next one is accepted when one is closed.
type Connections struct{ free chan struct{} }

// NewConnections returns a limit of n.
func NewConnections(n int) *Connections { return &Connections{make(chan struct{}, n)} }

// Listen returns ln under the limit.
func (c *Connections) Listen(ln net.Listener) net.Listener {
	return &limited{Listener: ln, free: c.free, closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	free   chan struct{}
	closed chan struct{}
	once   sync.Once
}

// Accept waits for room, and then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &counted{Conn: c, free: sync.OnceFunc(func() { <-l.free })}, nil
}

// Close ends Accept as well.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type counted struct {
	net.Conn
	free func()
}

// Close makes room.
func (c *counted) Close() error {
	err := c.Conn.Close()
	c.free()
	return err
}
