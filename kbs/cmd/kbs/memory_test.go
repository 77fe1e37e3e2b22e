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
	usual := pace{growth: 100, limit: 32 * mib}
	for _, c := range []struct {
		before pace
		live   int64
		want   pace
	}{
		{usual, 0, usual},
		{usual, 1 * mib, pace{400, 32 * mib}},
		{usual, 5 * mib, pace{260, 32 * mib}},
		{pace{260, 32 * mib}, 5*mib + mib/8, pace{260, 32 * mib}}, // 251 would be right, and is too near to stop the world for
		{pace{260, 32 * mib}, 9 * mib, pace{100, 37 * mib}},
		{usual, 200 * mib, pace{100, 610 * mib}},
		{pace{100, 610 * mib}, 5 * mib, pace{260, 32 * mib}},
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
