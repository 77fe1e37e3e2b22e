// Package logport gives the agent's log to a runtime that asks for it on a port
// of its own (kata-agent 1.3, 2.16): the Rust runtime connects to vsock port 1025
// and passes each line on, at the level that stands in it.
//
// The log is the one that otherwise goes to the console, which the host reads as
// well: it names faults by code and ticket and has no causes. Nothing waits for
// a reader. Lines lie in a queue of bounded size until somebody takes them; when
// it is full the oldest go, and a line says how many.
package logport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// maxQueue bounds what waits for a reader, in bytes: the log of a pod's start
	// is a few kB.
	maxQueue = 256 << 10
	// maxLine bounds one line, which the Rust runtime reads whole.
	maxLine = 16 << 10
	// batch bounds what is written at once.
	batch = 32 << 10
	// stalled is how long a reader may take nothing before it is left.
	stalled = 30 * time.Second
	// farewell is how long the last lines may take when the agent ends.
	farewell = time.Second
)

// Queue holds lines until a reader takes them. It is an io.Writer that never
// waits and never fails: each Write is one line, with its newline.
type Queue struct {
	mu    sync.Mutex
	lines [][]byte
	size  int    // bytes in lines
	lost  uint64 // lines that were dropped since that was last said
	more  chan struct{}
}

// NewQueue returns an empty queue.
func NewQueue() *Queue { return &Queue{more: make(chan struct{}, 1)} }

// Write keeps a copy of the line. A line that is too long counts as lost.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(line) > maxLine {
		q.lost++
	} else {
		q.lines = append(q.lines, append([]byte(nil), line...))
		q.size += len(line)
	}
	q.trim()
	select {
	case q.more <- struct{}{}:
	default:
	}
	return len(line), nil
}

func (q *Queue) trim() {
	for q.size > maxQueue {
		q.size -= len(q.lines[0])
		q.lines[0] = nil
		q.lines = q.lines[1:]
		q.lost++
	}
}

// take removes up to a batch of lines, nil if there are none.
func (q *Queue) take() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []byte
	if q.lost > 0 {
		out = lostLine(q.lost)
		q.lost = 0
	}
	n := 0
	for n < len(q.lines) && (len(out) == 0 || len(out)+len(q.lines[n]) <= batch) {
		out = append(out, q.lines[n]...)
		q.size -= len(q.lines[n])
		n++
	}
	if q.lines = q.lines[n:]; len(q.lines) == 0 {
		q.lines = nil // the array goes too
	}
	return out
}

// back puts what could not be sent before everything else, as one entry: a
// reader that comes later may get a line twice, and none in part.
func (q *Queue) back(text []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lines = append([][]byte{text}, q.lines...)
	q.size += len(text)
	q.trim()
}

// lostLine has the form of the others; see [NewHandler].
func lostLine(n uint64) []byte {
	return fmt.Appendf(nil, `{"msg":"lines of the log were lost","level":"WARN","ts":%q,"lines":%d}`+"\n", time.Now().UTC().Format(time.RFC3339Nano), n)
}

// Serve gives the lines to whoever is connected to l, one reader at a time: a new
// one takes the place of the one before, of which a runtime that has started anew
// knows nothing. It returns once ctx is done and what is left was sent, or a
// second later, and closes l.
func (q *Queue) Serve(ctx context.Context, l net.Listener) error {
	var readers sync.WaitGroup
	accepted := make(chan error, 1)
	go func() { accepted <- q.accept(ctx, l, &readers) }()
	var err error
	select {
	case err = <-accepted:
		err = fmt.Errorf("the log's port: %w", err)
	case <-ctx.Done():
		err = l.Close()
		if ended := <-accepted; !errors.Is(ended, net.ErrClosed) {
			err = errors.Join(err, ended)
		}
	}
	readers.Wait()
	return err
}

func (q *Queue) accept(ctx context.Context, l net.Listener, readers *sync.WaitGroup) error {
	leave := func() {} // ends the reader before, and waits for its end
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				leave() // the listener broke: nobody says farewell
			}
			return err
		}
		leave()
		this, cancel := context.WithCancelCause(ctx)
		done := make(chan struct{})
		readers.Go(func() {
			defer close(done)
			q.send(this, conn)
		})
		leave = func() { cancel(errReplaced); _ = conn.Close(); <-done }
	}
}

var errReplaced = errors.New("another reader came")

// send writes lines until the reader is gone or the context is done.
func (q *Queue) send(ctx context.Context, conn net.Conn) {
	gone := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		defer close(gone)
		// A reader has nothing to say: this ends when it closes its end, or says something.
		_, _ = conn.Read(make([]byte, 1))
	})
	defer func() {
		_ = conn.Close()
		watch.Wait()
	}()
	for {
		if !q.drain(ctx, conn, stalled) {
			return
		}
		select {
		case <-q.more:
		case <-gone:
			return
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), errReplaced) {
				q.drain(context.WithoutCancel(ctx), conn, farewell)
			}
			return
		}
	}
}

// drain sends what waits, and reports whether the reader took all of it; what it
// did not take stays. Each batch has its time, and once the context is done all
// of them together have the time of a farewell.
func (q *Queue) drain(ctx context.Context, conn net.Conn, patience time.Duration) bool {
	var last time.Time
	if patience == farewell {
		last = time.Now().Add(farewell)
	}
	for text := q.take(); text != nil; text = q.take() {
		until := last
		if until.IsZero() {
			until = time.Now().Add(patience)
		}
		_ = conn.SetWriteDeadline(until) // a connection without deadlines ends with its reader
		stop := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Now().Add(farewell)) })
		_, err := conn.Write(text)
		stop()
		if err != nil {
			q.back(text)
			return false
		}
	}
	return true
}
