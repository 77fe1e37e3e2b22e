package fair

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
)

// take takes places for a caller until it gets no more.
func take(p *Places, who string) (n int, leave []func()) {
	for {
		l, ok := p.Take(func() string { return who })
		if !ok {
			return n, leave
		}
		n++
		leave = append(leave, l)
	}
}

// However many take what they can get, whoever comes next finds a place.
func TestWhoComesFindsAPlace(t *testing.T) {
	p := New(256)
	var leave []func()
	for i, want := range []int{128, 64, 32, 16, 8, 4, 2, 1, 1} {
		n, l := take(p, string(rune('a'+i)))
		if n != want {
			t.Errorf("caller %d has %d places, want %d", i, n, want)
		}
		leave = append(leave, l...)
	}
	if _, ok := p.Take(func() string { return "late" }); ok {
		t.Error("there are more places than there are")
	}
	for _, l := range leave {
		l()
		l() // and again
	}
	if n, _ := take(p, "a"); n != 128 {
		t.Errorf("after all had gone one caller has %d places", n)
	}
}

// Callers that come to a full house together have the same.
func TestSharesAreEven(t *testing.T) {
	p := New(100)
	got := map[string]int{}
	for range 100 {
		for _, who := range []string{"a", "b", "c"} {
			if _, ok := p.Take(func() string { return who }); ok {
				got[who]++
			}
		}
	}
	for who, n := range got {
		if n != 25 {
			t.Errorf("%s has %d places", who, n)
		}
	}
}

// Nobody is asked who they are before it matters, and everybody once.
func TestAskedOnce(t *testing.T) {
	p := New(64)
	asked := 0
	for range 8 {
		if _, ok := p.Take(func() string { asked++; return "a" }); !ok {
			t.Fatal("refused")
		}
	}
	if asked != 0 {
		t.Errorf("%d were asked while there was room", asked)
	}
	for range 3 {
		if _, ok := p.Take(func() string { asked++; return "a" }); !ok {
			t.Fatal("refused")
		}
	}
	if asked != 11 {
		t.Errorf("asked %d times", asked)
	}
}

func TestConcurrentTakers(t *testing.T) {
	p := New(32)
	var wg sync.WaitGroup
	for _, who := range []string{"a", "b", "c", "d"} {
		wg.Go(func() {
			for range 200 {
				if leave, ok := p.Take(func() string { return who }); ok {
					leave()
				}
			}
		})
	}
	wg.Wait()
	if len(p.held) != 0 {
		t.Errorf("%d places are lost", len(p.held))
	}
}

// A listener closes what is one too many, tells it once, and has the place again
// when a connection ends.
func TestListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l := Listen(inner, 16, func(net.Conn) string { return "somebody" }, slog.New(slog.NewTextHandler(&log, nil)))
	accepted := make(chan net.Conn, 32)
	ended := make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			accepted <- conn
		}
	}()
	connect := func() (ok bool) {
		t.Helper()
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			return false // it was refused by then
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, err = io.ReadFull(conn, make([]byte, 1))
		return err == nil
	}
	for n := range 12 {
		if ok := connect(); ok != (n < 8) {
			t.Errorf("connection %d: %v", n, ok)
		}
	}
	first := <-accepted
	if whole, ok := first.(interface{ NetConn() net.Conn }); !ok || whole.NetConn().(*net.TCPConn) == nil { //nolint:forcetypeassert // it is one
		t.Error("the connection itself cannot be had")
	}
	for range 2 {
		_ = first.Close()
	}
	if !connect() {
		t.Error("a place was lost")
	}
	if connect() {
		t.Error("a place was given back twice")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "too many"); n != 1 {
		t.Errorf("told %d times", n)
	}
}
