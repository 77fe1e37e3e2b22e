package registry

import (
	"testing"
	"time"
)

// road carries bytes at so many MB/s for each connection, up to a whole, to a
// reader that takes so many.
type road struct{ each, whole, reader float64 }

// drive reads 200 MB and returns the most connections, and those at the end.
func (w road) drive(most int) (peak, last int) {
	p := newPace(most)
	now := time.Unix(1_700_000_000, 0)
	const n = 128 << 10
	seconds := func(rate float64) time.Duration { return time.Duration(n / rate / 1e6 * float64(time.Second)) }
	for range 200_000_000 / n {
		network := seconds(min(w.each*float64(p.lanes), w.whole))
		wait := max(time.Microsecond, network-seconds(w.reader)) // what came in while the reader worked is there
		from := now
		now = now.Add(wait)
		p.observe(n, from, now)
		now = now.Add(seconds(w.reader))
		peak = max(peak, p.lanes)
	}
	return peak, p.lanes
}

func TestPace(t *testing.T) {
	for name, tt := range map[string]struct {
		road       road
		most       int
		peak, last int
	}{
		"every connection is slow":         {road{10, 1000, 500}, 4, 4, 4},
		"the line is slow":                 {road{20, 20, 500}, 4, 2, 1},
		"the line is slow for four":        {road{10, 20, 500}, 4, 4, 2},
		"the reader is slower":             {road{300, 1000, 250}, 4, 1, 1},
		"the reader is hardly faster":      {road{200, 1000, 250}, 4, 1, 1},
		"more than one is not to be tried": {road{10, 1000, 500}, 1, 1, 1},
		"two at the most":                  {road{10, 1000, 500}, 2, 2, 2},
		"a very slow line":                 {road{1, 100, 500}, 4, 4, 4},
	} {
		t.Run(name, func(t *testing.T) {
			if peak, last := tt.road.drive(tt.most); peak != tt.peak || last != tt.last {
				t.Errorf("%d connections at the most and %d at the end, wanted %d and %d", peak, last, tt.peak, tt.last)
			}
		})
	}
}

func TestPaceRefused(t *testing.T) {
	p, now := newPace(4), time.Unix(0, 0)
	for range 100 {
		if p.observe(1<<20, now, now.Add(100*time.Millisecond)) > 1 {
			p.refuse()
		}
		now = now.Add(100 * time.Millisecond)
	}
	if p.settled || p.before != 0 || p.lanes != 1 {
		t.Errorf("%+v: what was refused is not what did not help", p)
	}
}

func TestWindowOfMemoryLimit(t *testing.T) {
	for _, tt := range []struct {
		bytes int64
		want  int
	}{{0, 6}, {-1, 0}, {3 << 19, 3}, {1<<20 + 1, 2}} {
		if w := newWindow(tt.bytes); w.left != tt.want {
			t.Errorf("%d bytes are %d pieces, wanted %d", tt.bytes, w.left, tt.want)
		}
	}
	small := func(limit int64) int { return pieces(0, limit) }
	if got := []int{small(20 << 20), small(24 << 20), small(48 << 20), small(1 << 40)}; got[0] != 2 || got[1] != 3 || got[2] != 6 || got[3] != 6 {
		t.Errorf("pieces by memory limit: %v", got)
	}
}
