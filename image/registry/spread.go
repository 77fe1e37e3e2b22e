package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// errNoLanes says that the registry did not serve one of several range requests
// as it should: it ignores them, lies about them, or wants fewer at a time. What
// it sends over one connection may be right all the same.
var errNoLanes = errors.New("the registry does not serve a blob in pieces")

// A spread reads the rest of a blob over several connections, its lanes, each of
// which asks for the next piece that nobody has asked for. Pieces come out in
// order, the first one while it is still coming in. There is one piece more than
// there are lanes, so that none waits for the reader alone.
//
// It knows nothing of repeating: after the first piece that fails, and what lies
// before it, it gives that error for good. What lies behind it is fetched again
// by whoever goes on.
type spread struct {
	ctx    context.Context //nolint:containedctx // that of the blob, as long as it is read
	cancel context.CancelFunc
	fetch  func(ctx context.Context, from, to int64) (io.ReadCloser, error)
	window *window
	end    int64
	wg     sync.WaitGroup

	mu       sync.Mutex
	changed  *sync.Cond
	next     int64    // where the first piece begins that nobody asked for
	queue    []*piece // in order; the first is being read
	lanes    int      // wanted
	running  int
	borrowed int   // pieces of the window
	stopped  error // a piece failed, or nobody reads any more
}

// A piece is a part of a blob, as far as it came in.
type piece struct {
	from, to int64
	buf      *[pieceSize]byte
	filled   int // of buf
	read     int // of what is filled
	err      error
}

// newSpread starts to fetch what lies between two offsets. It returns nil if the
// window has no room.
func newSpread(ctx context.Context, w *window, from, end int64, lanes int, fetch func(ctx context.Context, from, to int64) (io.ReadCloser, error)) *spread {
	s := &spread{fetch: fetch, window: w, next: from, end: end}
	s.changed = sync.NewCond(&s.mu)
	s.ctx, s.cancel = context.WithCancel(ctx)
	if !s.resize(lanes) {
		s.cancel()
		return nil
	}
	return s
}

// resize changes the number of lanes. It reports whether the window had room.
func (s *spread) resize(lanes int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if more := lanes + 1 - s.borrowed; more > 0 {
		if !s.window.borrow(more) {
			return false
		}
		s.borrowed += more
	}
	s.lanes = lanes
	for ; s.running < lanes; s.running++ {
		s.wg.Go(s.lane)
	}
	s.changed.Broadcast()
	return true
}

// wanted is the number of lanes.
func (s *spread) wanted() int { return s.lanes } // the reader alone changes it

// begin waits for the first byte and reports whether it came.
func (s *spread) begin(clock Clock, patience time.Duration) bool {
	late := false
	stop := clock.AfterFunc(patience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.changed.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.stopped != nil || late:
			return false
		case len(s.queue) > 0 && s.queue[0].filled > 0:
			return true
		}
		s.changed.Wait()
	}
}

// lane fetches one piece after another.
func (s *spread) lane() {
	for p := s.take(); p != nil; p = s.take() {
		s.report(p, 0, s.fill(p))
	}
}

// take waits for a place in the queue. It returns nil when the lane is not
// needed any more.
func (s *spread) take() *piece {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.stopped != nil || s.running > s.lanes || s.next == s.end {
			s.running--
			return nil
		}
		if len(s.queue) <= s.lanes {
			break
		}
		s.changed.Wait()
	}
	p := &piece{from: s.next, to: min(s.next+pieceSize, s.end), buf: piecePool.Get().(*[pieceSize]byte)} //nolint:forcetypeassert // nothing else is put there
	s.next = p.to
	s.queue = append(s.queue, p)
	return p
}

// fill fetches the piece.
func (s *spread) fill(p *piece) error {
	body, err := s.fetch(s.ctx, p.from, p.to)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	want := int(p.to - p.from)
	for at := 0; at < want; {
		n, err := body.Read(p.buf[at:want])
		at += n
		s.report(p, n, nil)
		if errors.Is(err, io.EOF) && at < want {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && at < want {
			return err
		}
	}
	// Reading on to the end lets the connection be used again.
	if n, _ := body.Read(make([]byte, 1)); n > 0 {
		return fmt.Errorf("%w: more than was asked for", errNoLanes)
	}
	return nil
}

// report tells the reader of n more bytes, or of a failure.
func (s *spread) report(p *piece, n int, err error) {
	if n == 0 && err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.filled += n
	if err != nil {
		p.err = err
		s.stopped = err // nothing behind what is in the queue will be read
	}
	s.changed.Broadcast()
}

func (s *spread) Read(b []byte) (int, error) {
	p, ready, err := s.wait()
	if ready == 0 {
		return 0, err
	}
	n := copy(b, p.buf[p.read:p.read+ready]) // a lane writes behind what is filled only
	s.mu.Lock()
	defer s.mu.Unlock()
	p.read += n
	if p.from+int64(p.read) == p.to && p.err == nil {
		piecePool.Put(p.buf)
		s.queue = s.queue[1:]
		s.changed.Broadcast()
	}
	return n, nil
}

// wait returns the first piece and how many bytes of it may be read. Where
// there are none, it says why.
func (s *spread) wait() (p *piece, ready int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case len(s.queue) > 0:
			p = s.queue[0]
			if ready = p.filled - p.read; ready > 0 || p.err != nil {
				return p, ready, p.err
			}
		case s.next == s.end:
			return nil, 0, io.EOF
		case s.stopped != nil:
			return nil, 0, s.stopped
		}
		s.changed.Wait()
	}
}

var errClosedSpread = errors.New("read after close")

// Close ends all lanes and waits for them.
func (s *spread) Close() error {
	s.mu.Lock()
	s.stopped = errClosedSpread
	s.changed.Broadcast()
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	for _, p := range s.queue {
		piecePool.Put(p.buf)
	}
	s.queue, s.next = nil, -1
	s.window.giveBack(s.borrowed)
	s.borrowed = 0
	return nil
}
