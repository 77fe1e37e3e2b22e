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
		{29 * mib, 0, 29 * mib},
		{29 * mib, 9 * mib, 29 * mib},
		{29 * mib, 10 * mib, 29 * mib}, // 30 would do, and is too near to stop the world for
		{29 * mib, 200 * mib, 410 * mib},
		{410 * mib, 5 * mib, 29 * mib},
		{29 * mib, math.MaxInt64, math.MaxInt64},
		{math.MaxInt64, 0, 29 * mib},
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
