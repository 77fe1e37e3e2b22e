package imagetest

import (
	"bytes"
	"net/http"
	"sync"
	"time"
)

// Pieces serves a blob of which pieces may be asked for by range requests, and
// does to those what a test wants.
type Pieces struct {
	Blob []byte
	// Mangle answers a request with a Range in place of the blob, if it returns
	// true. n counts those requests, from 1.
	Mangle func(n int, w http.ResponseWriter, r *http.Request) bool

	mu      sync.Mutex
	asked   []string
	clients map[string]bool
}

// ServeHTTP serves what is asked for.
func (p *Pieces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	ranged := r.Header.Get("Range")
	n := 0
	if p.clients == nil {
		p.clients = map[string]bool{}
	}
	if ranged != "" {
		p.asked = append(p.asked, ranged)
		p.clients[r.RemoteAddr] = true
		n = len(p.asked)
	}
	p.mu.Unlock()
	w.Header().Set("Etag", `"one"`)
	if n > 0 && p.Mangle != nil && p.Mangle(n, w, r) {
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.Blob))
}

// Asked returns the Range of every request that had one.
func (p *Pieces) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// Connections returns over how many connections ranges were asked for.
func (p *Pieces) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.clients)
}
