package registry

import (
	"runtime/debug"
	"sync"
)

const (
	// pieceSize is what one range request asks for, in bytes: enough that the wait
	// for its answer is little beside its transfer, and little enough that several
	// of them in memory do not matter.
	pieceSize = 512 << 10
	// defaultWindow lets one blob have four connections, or two blobs two each.
	defaultWindow = 6 * pieceSize
	// limitShare is the part of the process's memory limit that a window may be.
	limitShare = 16
)

// A window bounds the pieces of all blobs of a client that are fetched ahead of
// who reads them, and with them the connections.
type window struct {
	mu   sync.Mutex
	left int // pieces
}

// newWindow reads [Config.Window].
func newWindow(bytes int64) *window {
	return &window{left: pieces(bytes, debug.SetMemoryLimit(-1))} // that call only asks
}

func pieces(bytes, limit int64) int {
	if bytes == 0 {
		bytes = min(defaultWindow, limit/limitShare)
	}
	return int(max(0, bytes) / pieceSize)
}

// borrow takes n pieces, or none.
func (w *window) borrow(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left < n {
		return false
	}
	w.left -= n
	return true
}

func (w *window) giveBack(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left += n
}

var piecePool = sync.Pool{New: func() any { return new([pieceSize]byte) }} //nolint:gochecknoglobals // memory that blobs hand on to each other
