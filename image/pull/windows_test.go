package pull

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime/debug"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// One decoder goes from layer to layer, and is dropped with the last pull.
func TestWindowsAreHandedOn(t *testing.T) {
	w := newWindows()
	w.enter()
	w.enter()
	one, err := w.decoder()
	if err != nil {
		t.Fatal(err)
	}
	w.giveBack(one)
	two, err := w.decoder()
	if err != nil || two != one {
		t.Errorf("another decoder was made, %v", err)
	}
	w.leave()
	w.giveBack(two)
	if len(w.free) != 1 {
		t.Error("a decoder was dropped while there is a pull")
	}
	w.leave()
	if len(w.free) != 0 {
		t.Error("a decoder is kept for nobody")
	}
	w.giveBack(one)
	if len(w.free) != 0 {
		t.Error("a decoder that came late is kept for nobody")
	}
}

// A layer waits for a window until the one before it is decoded, not until that
// is unpacked and closed.
func TestWindowsAreFew(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(20 << 20))
	w := newWindows()
	w.enter()
	defer w.leave()
	content := bytes.Repeat([]byte("window"), 1000)
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	frame := z.EncodeAll(content, nil)
	first, err := w.open(t.Context(), bytes.NewReader(frame))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(first, make([]byte, len(content))); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := w.open(ended, bytes.NewReader(frame)); !errors.Is(err, context.Canceled) {
		t.Errorf("a second window with little memory: %v", err)
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
	second, err := w.open(t.Context(), bytes.NewReader(frame))
	if err != nil {
		t.Fatal(err)
	}
	first.close() // says nothing about the second one's
	if n := len(w.room); n != 1 {
		t.Errorf("%d windows are taken", n)
	}
	if got, err := io.ReadAll(second); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	second.close()
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after close: %v", err)
	}
	if n := len(w.room); n != 0 {
		t.Errorf("%d windows are taken", n)
	}
}

// Whoever stops early gives the window back, and reads nothing more.
func TestWindowOfWhoStops(t *testing.T) {
	w := newWindows()
	d, err := w.open(t.Context(), bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	d.close()
	d.close()
	if _, err := d.Read(make([]byte, 1)); !errors.Is(err, errClosed) || len(w.room) != 0 {
		t.Errorf("%v, %d windows taken", err, len(w.room))
	}
}
