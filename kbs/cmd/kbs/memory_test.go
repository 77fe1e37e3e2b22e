package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestPaceFollowsWhatLives(t *testing.T) {
	growth, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		debug.SetGCPercent(growth)
		debug.SetMemoryLimit(limit)
	})
	const mib = 1 << 20
	usual := pace{growth: 100, limit: 29 * mib}
	for _, c := range []struct {
		before pace
		live   int64
		want   pace
	}{
		{usual, 0, usual},
		{usual, 1 * mib, pace{400, 29 * mib}},
		{usual, 5 * mib, pace{240, 29 * mib}},
		{pace{240, 29 * mib}, 5*mib + mib/8, pace{240, 29 * mib}}, // 231 would be right, and is too near to stop the world for
		{pace{240, 29 * mib}, 9 * mib, pace{100, 28*mib + 9*mib/4}},
		{usual, 200 * mib, pace{100, 460 * mib}},
		{pace{100, 460 * mib}, 5 * mib, pace{240, 29 * mib}},
		{usual, math.MaxInt64, pace{100, math.MaxInt64}},
		{pace{100, math.MaxInt64}, 0, usual},
	} {
		p := c.before
		p.set()
		p.follow(c.live)
		if p != c.want {
			t.Errorf("%d live after %+v: %+v, want %+v", c.live, c.before, p, c.want)
		}
		if g, l := debug.SetGCPercent(p.growth), debug.SetMemoryLimit(-1); g != c.want.growth || l != c.want.limit {
			t.Errorf("%d live: in force are %d %% and %d bytes, want %+v", c.live, g, l, c.want)
		}
	}
	runtime.GC()
	if living() <= 0 {
		t.Error("the runtime does not say what lives")
	}
}
