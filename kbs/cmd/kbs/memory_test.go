package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestLimitFollowsWhatLives(t *testing.T) {
	old := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(old) })
	const mib = 1 << 20
	for _, c := range []struct{ limit, live, want int64 }{
		{28 * mib, 0, 28 * mib},
		{28 * mib, 9 * mib, 28 * mib},
		{28 * mib, 10 * mib, 28 * mib}, // 30 would be right, and is too near to stop the world for
		{28 * mib, 200 * mib, 410 * mib},
		{410 * mib, 5 * mib, 28 * mib},
		{28 * mib, math.MaxInt64, math.MaxInt64},
		{math.MaxInt64, 0, 28 * mib},
	} {
		debug.SetMemoryLimit(c.limit)
		got := follow(c.limit, c.live)
		if got != c.want || debug.SetMemoryLimit(-1) != c.want {
			t.Errorf("follow(%d, %d) = %d, in force %d, want %d", c.limit, c.live, got, debug.SetMemoryLimit(-1), c.want)
		}
	}
	runtime.GC()
	if living() <= 0 {
		t.Error("the runtime does not say what lives")
	}
}
