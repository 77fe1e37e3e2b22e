package pull

import (
	"context"
	"io"
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

// open decodes r as soon as one more layer may have a window. Whoever calls it
// owes a close.
func (w *windows) open(ctx context.Context, r io.Reader) (*windowed, error) {
	select {
	case w.room <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	z, err := w.decoder()
	if err == nil {
		err = z.Reset(r)
	}
	if err != nil {
		<-w.room
		return nil, err
	}
	return &windowed{windows: w, z: z}, nil
}

// A windowed is a layer that is being decoded. Its window goes to the next layer
// when the last byte was read, not when it was unpacked.
type windowed struct {
	windows *windows
	z       *zstd.Decoder // nil: given back
	err     error         // after which nothing is read
}

func (d *windowed) Read(p []byte) (int, error) {
	if d.z == nil {
		return 0, d.err
	}
	n, err := d.z.Read(p)
	if err != nil {
		d.err = err
		d.close()
	}
	return n, err
}

// close gives the window back. It is no matter how often.
func (d *windowed) close() {
	if d.z == nil {
		return
	}
	d.windows.giveBack(d.z)
	d.z = nil
	if d.err == nil {
		d.err = errClosed
	}
	<-d.windows.room
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
