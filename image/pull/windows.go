package pull

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// littleMemory is the memory limit of a process, in bytes, below which one zstd
// layer is decoded at a time.
const littleMemory = 64 << 20

// windows are the decoders of zstd. One has a window of 8 MiB as a rule, and up
// to maxZstdWindow, where gzip has 32 KiB: so there are few, and they are handed
// on from layer to layer. They are dropped when nothing is pulled any more.
//
// A sync.Pool would not do: it keeps what is put into it for each processor, and
// so more of them than are ever in use.
type windows struct {
	room chan struct{}

	mu    sync.Mutex
	users int // pulls under way
	free  []*zstd.Decoder
}

func newWindows() *windows {
	n := max(2, runtime.GOMAXPROCS(0)/2) // one layer's stages do not fill two cores all the time
	if debug.SetMemoryLimit(-1) < littleMemory {
		n = 1
	}
	return &windows{room: make(chan struct{}, n)}
}

// enter keeps decoders until leave.
func (w *windows) enter() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users++
}

func (w *windows) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users--; w.users == 0 {
		w.free = nil
	}
}

// wait waits until one more layer may have a window. The function that it
// returns ends that.
func (w *windows) wait(ctx context.Context) (func(), error) {
	select {
	case w.room <- struct{}{}:
		return func() { <-w.room }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// decoder returns a decoder that reads nothing yet.
func (w *windows) decoder() (*zstd.Decoder, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.free); n > 0 {
		z := w.free[n-1]
		w.free = w.free[:n-1]
		return z, nil
	}
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
}

// giveBack takes a decoder for the next layer.
func (w *windows) giveBack(z *zstd.Decoder) {
	if z.Reset(nil) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users > 0 {
		w.free = append(w.free, z)
	}
}
