package pull

import (
	"context"
	"errors"
	"runtime/debug"
	"testing"
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

func TestWindowsAreFew(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(20 << 20))
	w := newWindows()
	done, err := w.wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := w.wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a second window with little memory: %v", err)
	}
	done()
	if done, err = w.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	done()
}
