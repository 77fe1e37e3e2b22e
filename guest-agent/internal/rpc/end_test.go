package rpc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
)

// inMemory serves one end of a pipe; the other is returned. The server has ended
// when the channel gives its error.
func inMemory(t *testing.T, d *desk) (*Server, net.Conn, chan error) {
	t.Helper()
	here, there := net.Pipe()
	conns := make(chan net.Conn, 1)
	conns <- there
	s := NewServer(Config{}, d.services()...)
	served := make(chan error, 1)
	go func() {
		served <- s.Serve(context.Background(), &waitingListener{conns: conns, closed: make(chan struct{})})
	}()
	return s, here, served
}

// waitingListener has one connection, and waits for its end then.
type waitingListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *waitingListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *waitingListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}
func (l *waitingListener) Addr() net.Addr { return &net.UnixAddr{} }

// Who was heard is answered before the end.
func TestShutdownWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk()
		s, here, served := inMemory(t, d)
		c := ttrpc.NewClient(here)
		called := make(chan error, 2)
		go func() { called <- read(t.Context(), c, "LateRead", 1000) }()
		go func() { called <- read(t.Context(), c, "LateRead", 2000) }()
		synctest.Wait()
		ended := make(chan error, 1)
		go func() { ended <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("the end did not wait: %v", err)
		default:
		}
		close(d.release)
		for range 2 {
			if err := <-called; err != nil {
				t.Errorf("a call under way got %v", err)
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// Who never ends is left after the time that there is, and ended by Close.
func TestShutdownGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk()
		s, here, served := inMemory(t, d)
		c := ttrpc.NewClient(here)
		called := make(chan error, 1)
		go func() { called <- read(t.Context(), c, "LateRead", 1000) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Minute {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-d.ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if err := <-called; err == nil {
			t.Error("a call without end was answered")
		}
	})
}

// A call that does not hear that it is to end keeps its server for a while, and
// not for good; the log says which one it is.
func TestDeafCallsAreLeftBehind(t *testing.T) {
	for name, end := range map[string]func(s *Server, cancel func()) error{
		"closed":            func(s *Server, _ func()) error { return s.Close() },
		"its context ended": func(_ *Server, cancel func()) error { cancel(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				d := newDesk()
				here, there := net.Pipe()
				conns := make(chan net.Conn, 1)
				conns <- there
				s := NewServer(Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, d.services()...)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				served := make(chan error, 1)
				go func() { served <- s.Serve(ctx, &waitingListener{conns: conns, closed: make(chan struct{})}) }()
				for _, stream := range []uint32{1, 3} {
					if _, err := here.Write(requestFrame(t, stream, "Deaf", nil)); err != nil {
						t.Fatal(err)
					}
					<-d.waiting
				}
				begun := time.Now()
				if err := end(s, cancel); err != nil {
					t.Error(err)
				}
				err := <-served
				if took := time.Since(begun); took != endTimeout || err == nil {
					t.Errorf("it ended after %s: %v", took, err)
				}
				if got := log.String(); !strings.Contains(got, "they are left behind") || !strings.Contains(got, "/test.Desk/Deaf (2)") {
					t.Errorf("the log says %q", got)
				}
				close(d.release) // what was left behind ends with the test
			})
		})
	}
}

// Connections that ask nothing keep nobody, and nothing new is served.
func TestShutdownOfTheIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk()
		s, here, served := inMemory(t, d)
		c := ttrpc.NewClient(here)
		if err := read(t.Context(), c, "Read", 1000); err != nil {
			t.Error(err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if err := read(t.Context(), c, "Read", 1000); !errors.Is(err, ttrpc.ErrClosed) {
			t.Errorf("afterwards: %v", err)
		}
		if err := s.Serve(t.Context(), &waitingListener{closed: make(chan struct{})}); !errors.Is(err, ErrClosed) {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// A message that does not arrive ends its connection, and an idle connection does
// not end.
func TestHalfAMessage(t *testing.T) {
	for name, sent := range map[string][]byte{
		"of a header":  make([]byte, 3),
		"of a request": append(head(100, 1, kindRequest, 0), "only this"...),
		"of a large":   append(head(1<<20, 1, kindRequest, 0), "only this"...),
		"of a refused": append(head(5<<20, 1, kindRequest, 0), "only this"...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, here, served := inMemory(t, newDesk())
				<-time.After(24 * time.Hour) // of the bubble's clock
				begun := time.Now()
				if _, err := here.Write(sent); err != nil {
					t.Fatal(err)
				}
				if _, err := here.Read(make([]byte, 1)); err == nil || time.Since(begun) != frameTimeout {
					t.Errorf("after %s: %v", time.Since(begun), err)
				}
				_ = s.Close()
				if err := <-served; !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			})
		})
	}
}

// A peer that takes nothing loses its connection, and its calls end.
func TestAPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk()
		s, here, served := inMemory(t, d)
		write := func(stream uint32, method string) {
			if _, err := here.Write(requestFrame(t, stream, method, nil)); err != nil {
				t.Error(err)
			}
		}
		write(1, "Late")
		write(3, "Echo")
		begun := time.Now()
		if err := <-d.ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if took := time.Since(begun); took > writeTimeout || took < writeTimeout/2 {
			t.Errorf("it ended after %s", took)
		}
		_ = s.Close()
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}
