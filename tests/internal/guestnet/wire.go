package guestnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"
)

// wire is what leads to one address. It can be cut.
type wire struct {
	mu    sync.Mutex
	left  int64 // bytes that it still lets through
	conns map[net.Conn]bool
}

// unlimited is more than a wire ever carries.
const unlimited = math.MaxInt64

func newWire() *wire { return &wire{left: unlimited, conns: map[net.Conn]bool{}} }

// CutAfter lets so many more bytes through to a forwarded address and back. Then
// all connections to it end, and no other comes about.
func (n *Net) CutAfter(addr string, bytes int64) error { return n.limit(addr, bytes) }

// Mend takes [Net.CutAfter] back.
func (n *Net) Mend(addr string) error { return n.limit(addr, unlimited) }

func (n *Net) limit(addr string, bytes int64) error {
	n.mu.Lock()
	w := n.wires[addr]
	n.mu.Unlock()
	if w == nil {
		return fmt.Errorf("%s is not forwarded", addr)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = bytes
	w.endIfCut()
	return nil
}

// endIfCut ends every connection of a wire that lets nothing through. The caller
// holds mu.
func (w *wire) endIfCut() {
	if w.left > 0 {
		return
	}
	for c := range w.conns {
		_ = c.Close()
	}
}

// add enters a connection, or refuses one that a cut wire cannot have.
func (w *wire) add(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = true
	return w.left > 0
}

func (w *wire) remove(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
	_ = c.Close()
}

var errCut = errors.New("the wire is cut")

// metered reads what a wire still lets through.
type metered struct {
	w    *wire
	from io.Reader
}

func (m metered) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if m.w.left == unlimited {
		return n, err
	}
	if int64(n) > m.w.left {
		n, err = int(m.w.left), errCut
	}
	m.w.left -= int64(n)
	return n, err
}

// relay copies both ways until both sides have ended, or the wire is cut.
func (w *wire) relay(inside net.Conn, addr string) {
	defer w.remove(inside)
	if !w.add(inside) {
		return
	}
	outside, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return
	}
	defer w.remove(outside)
	if !w.add(outside) {
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{inside, outside}, {outside, inside}} {
		both.Go(func() {
			_, err := io.Copy(way[0], metered{w, way[1]})
			_ = way[0].(*net.TCPConn).CloseWrite()
			if errors.Is(err, errCut) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.endIfCut()
			}
		})
	}
	both.Wait()
}
