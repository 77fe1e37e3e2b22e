package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Proxy stands between a client and the server, and cuts connections.
type Proxy struct {
	dir    string
	server string // socket
	ln     net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	left  int // chunks until a cut; -1: none
	cuts  int
}

// NewProxy starts a proxy that ends with the test.
func (s *Server) NewProxy(t testing.TB) *Proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgproxy-")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", port)))
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{dir: dir, server: s.Socket(), ln: ln, conns: map[net.Conn]bool{}, left: -1}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		if err := errors.Join(ln.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// DSN names a database of the server behind the proxy.
func (p *Proxy) DSN(database string) string { return dsn(p.dir, database) }

// Cut cuts every connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close() // that is the point
	}
}

// CutAfter lets n more pieces of traffic pass, in any direction, and cuts the
// connection of the next one, which is lost. It returns how often the proxy
// has cut so far. A negative n cuts nothing.
func (p *Proxy) CutAfter(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = max(n, -1)
	return p.cuts
}

// pass says whether a piece of traffic goes through.
func (p *Proxy) pass() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.left < 0:
		return true
	case p.left > 0:
		p.left--
		return true
	}
	p.left = -1
	p.cuts++
	return false
}

func (p *Proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		server, err := (&net.Dialer{}).DialContext(context.Background(), "unix", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		p.wg.Go(func() { p.carry(client, server) })
		p.wg.Go(func() { p.carry(server, client) })
	}
}

func (p *Proxy) carry(from, to net.Conn) {
	defer func() {
		_, _ = from.Close(), to.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !p.pass() {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
