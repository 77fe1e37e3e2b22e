package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// Config says how calls are served.
type Config struct {
	Intercept Interceptor  // nil for none
	Logger    *slog.Logger // nil discards
}

// Server serves calls on any number of connections. It must be made by
// [NewServer].
type Server struct {
	methods   table
	intercept Interceptor
	log       *slog.Logger
	closed    chan struct{} // by Shutdown or Close
	cut       chan struct{} // by Close: no call goes on

	mu        sync.Mutex
	listeners map[net.Listener]bool
	conns     map[*conn]chan struct{} // closed when the connection is no more
}

// NewServer returns a server of services.
func NewServer(cfg Config, services ...Service) *Server {
	s := &Server{
		methods: newTable(services), intercept: cfg.Intercept, log: cfg.Logger, closed: make(chan struct{}), cut: make(chan struct{}),
		listeners: map[net.Listener]bool{}, conns: map[*conn]chan struct{}{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Serve serves the connections that l accepts, and closes it at its end. Calls
// have contexts of ctx, which end with their connection. When ctx is done or l
// fails, it ends all of that and returns the error; after [Server.Shutdown] and
// [Server.Close] it returns [ErrClosed]. The last call has ended by then, or was
// left behind: see endTimeout.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	return s.ServeEach(ctx, l, func(ctx context.Context, _ net.Conn) (context.Context, error) { return ctx, nil })
}

// ServeEach is [Server.Serve] with a context for each connection, which tells its
// calls who is at its other end. A connection without is closed.
func (s *Server) ServeEach(ctx context.Context, l net.Listener, known func(context.Context, net.Conn) (context.Context, error)) error {
	if !s.listen(l) {
		return errors.Join(ErrClosed, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var serving sync.WaitGroup
	defer s.await(ctx, &serving)
	defer s.forget(l)
	defer context.AfterFunc(ctx, func() { s.forget(l) })()
	for {
		peer, err := s.accept(ctx, l)
		if err != nil {
			if !errors.Is(err, ErrClosed) {
				cancel() // Shutdown lets calls end by themselves
			}
			return err
		}
		its, err := known(ctx, peer)
		if err != nil {
			s.log.Warn("a connection was refused", slog.Any("err", err))
			_ = peer.Close()
			continue
		}
		serving.Go(func() { s.serve(its, peer) })
	}
}

// await waits for the connections, and so for their calls. Once those have been
// told to end it does so for a bounded time: what they then still do must not keep
// the process from ending.
func (s *Server) await(ctx context.Context, serving *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { // ends with the last call, whenever that is
		serving.Wait()
		close(done)
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	case <-s.cut:
	}
	patience := time.NewTimer(endTimeout)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
		s.log.Error("calls go on although they were ended: they are left behind", slog.Any("methods", s.methods.under()), slog.Duration("waited", endTimeout))
	}
}

func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() {
		return false
	}
	s.listeners[l] = true
	return true
}

func (s *Server) forget(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	_ = l.Close()
}

// accept waits for a connection. A machine that has no means for one, which a
// peer can bring about, has them again later.
func (s *Server) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for {
		peer, err := l.Accept()
		switch {
		case err == nil:
			return peer, nil
		case s.isClosed():
			return nil, ErrClosed
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) && !errors.Is(err, syscall.ENOBUFS) && !errors.Is(err, syscall.ENOMEM):
			return nil, err
		}
		s.log.Error("no connection can be accepted for now", slog.Any("err", err))
		pause := time.NewTimer(acceptPause)
		select {
		case <-pause.C:
		case <-s.closed:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// serve serves one connection to its end, and waits for its calls.
func (s *Server) serve(ctx context.Context, peer net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	c := &conn{s: s, peer: peer, ctx: ctx, cancel: cancel, in: newFrameReader(peer)}
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = peer.Close() })()
	gone := make(chan struct{})
	if !s.enter(c, gone) {
		_ = peer.Close()
		return
	}
	c.calls.Go(c.lead)
	c.calls.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	close(gone)
}

func (s *Server) enter(c *conn, gone chan struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() {
		return false
	}
	if len(s.conns) >= maxConns {
		s.log.Warn("a connection was refused: there are too many")
		return false
	}
	s.conns[c] = gone
	return true
}

// isClosed is asked under mu where something is entered.
func (s *Server) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// close lets nothing new in, and returns what is there.
func (s *Server) close() (conns map[*conn]chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isClosed() {
		close(s.closed)
	}
	for l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	clear(s.listeners)
	conns = make(map[*conn]chan struct{}, len(s.conns))
	for c, gone := range s.conns {
		conns[c] = gone
	}
	return conns, err
}

// Shutdown accepts no more connections, and waits until every call that has come
// in is answered and its connection is closed, or ctx is done.
func (s *Server) Shutdown(ctx context.Context) error {
	conns, err := s.close()
	for c := range conns {
		c.drain()
	}
	for _, gone := range conns {
		select {
		case <-gone:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
	return err
}

// Close ends all connections, and so the contexts of their calls. It does not wait
// for those; Serve does, for a bounded time.
func (s *Server) Close() error {
	conns, err := s.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.cut:
	default:
		close(s.cut)
	}
	for c := range conns {
		c.cancel()
		_ = c.peer.Close()
	}
	return err
}
