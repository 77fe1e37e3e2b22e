package imagetest

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Flaky serves a blob over connections that do not hold.
type Flaky struct {
	Blob []byte
	// Breaks are the offsets in the blob at which connections break, in order.
	Breaks []int
	// NoRange ignores Range, as some registries and proxies do.
	NoRange bool
	// Stall holds the connection open at a break instead of closing it.
	Stall bool

	mu     sync.Mutex
	ranges []string
}

// Ranges returns the Range header of every request so far, without the end
// where that is the end of the blob.
func (f *Flaky) Ranges() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.ranges...)
}

func (f *Flaky) next(r *http.Request) (at int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ranges = append(f.ranges, strings.TrimSuffix(r.Header.Get("Range"), strconv.Itoa(len(f.Blob)-1)))
	if len(f.Breaks) == 0 {
		return -1
	}
	at, f.Breaks = f.Breaks[0], f.Breaks[1:]
	return at
}

// ServeHTTP serves the blob up to the next break.
func (f *Flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := f.next(r)
	if f.NoRange {
		r.Header.Del("Range")
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	content := io.ReadSeeker(bytes.NewReader(f.Blob))
	if at >= 0 {
		content = &breaking{ReadSeeker: content, left: at, stop: func() {
			_ = http.NewResponseController(w).Flush()
			if f.Stall {
				<-r.Context().Done()
			}
			panic(http.ErrAbortHandler)
		}}
	}
	http.ServeContent(w, r, "", time.Time{}, content)
}

// breaking calls stop when the offset left is reached.
type breaking struct {
	io.ReadSeeker
	at   int64
	left int // offset of the break
	stop func()
}

func (b *breaking) Seek(offset int64, whence int) (int64, error) {
	at, err := b.ReadSeeker.Seek(offset, whence)
	b.at = at
	return at, err
}

func (b *breaking) Read(p []byte) (int, error) {
	due := int64(b.left) - b.at
	if due <= 0 {
		b.stop()
	}
	n, err := b.ReadSeeker.Read(p[:min(int64(len(p)), due)])
	b.at += int64(n)
	return n, err
}
