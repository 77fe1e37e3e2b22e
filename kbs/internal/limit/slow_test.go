package limit

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory, so that they live in a
// bubble of fake time.
type pipes struct{ c chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.c
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error { close(p.c); return nil }
func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A body that trickles is cut off; one that only takes long is not.
func TestSlowBody(t *testing.T) {
	for name, c := range map[string]struct {
		chunk int
		pause time.Duration
		whole bool
	}{
		"fast enough": {5000, time.Second, true},
		"a trickle":   {1, 5 * time.Second, false},
		"silent":      {0, time.Hour, false},
		"long grace":  {50_000, 9 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := make(chan error, 1)
				srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, err := io.Copy(io.Discard, Body(w, r.Body, 4096))
					got <- err
				})}
				ln := pipes{make(chan net.Conn, 1)}
				done := make(chan error, 1)
				go func() { done <- srv.Serve(ln) }()
				client, server := net.Pipe()
				ln.c <- server
				var helpers sync.WaitGroup
				stop := make(chan struct{})
				helpers.Go(func() {
					const total = 50_000
					_, _ = fmt.Fprintf(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", total)
					for sent := 0; sent < total; sent += c.chunk {
						select {
						case <-time.After(c.pause):
						case <-stop:
							return
						}
						if _, err := client.Write(make([]byte, c.chunk)); err != nil {
							return
						}
					}
				})
				helpers.Go(func() { _, _ = io.Copy(io.Discard, client) })
				start := time.Now()
				err := <-got
				if (err == nil) != c.whole {
					t.Errorf("after %s: %v", time.Since(start), err)
				}
				if !c.whole && time.Since(start) > grace+time.Second {
					t.Errorf("cut off only after %s", time.Since(start))
				}
				close(stop)
				_ = client.Close()
				helpers.Wait()
				_ = srv.Close()
				if err := <-done; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			})
		})
	}
}

func TestConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := NewConnections(2)
		one, two := pipes{make(chan net.Conn, 3)}, pipes{make(chan net.Conn, 3)}
		a, b := open.Listen(one), open.Listen(two)
		for range 3 {
			_, c := net.Pipe()
			one.c <- c
		}
		accepted := make(chan net.Conn, 3)
		go func() {
			for {
				c, err := a.Accept()
				if err != nil {
					close(accepted)
					return
				}
				accepted <- c
			}
		}()
		synctest.Wait()
		if len(accepted) != 2 {
			t.Fatalf("%d are open", len(accepted))
		}
		first := <-accepted
		_ = first.Close()
		_ = first.Close() // counts once
		synctest.Wait()
		if len(accepted) != 2 {
			t.Errorf("%d are open after one was closed", len(accepted))
		}
		ended := make(chan error, 1)
		go func() { _, err := b.Accept(); ended <- err }()
		synctest.Wait()
		_ = b.Close() // while it waits for room
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed listener gives %v", err)
		}
		_ = (<-accepted).Close()
		_ = (<-accepted).Close()
		_ = a.Close()
		if _, ok := <-accepted; ok {
			t.Error("more connections than there were")
		}
	})
}
