package main

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How the heap may grow before it is collected. A busy broker has a few
// megabytes that live and makes a hundred times as much garbage in a second. At
// Go's default of 100 percent of what lives, it would spend a quarter of its
// time on collecting; without a bound, a machine with little memory would swap.
// So it may spend what keeps a broker of usual size below 64 MB resident, of
// which its program takes about half, and never less than the default would
// give it.
const (
	heapPercent = 400
	spent       = 29 << 20 // bytes, of heap, stacks and the collector together
	overhead    = 10 << 20 // bytes, of all but the heap
	lookEvery   = time.Second
)

// spendMemory sets the collector's pace until ctx ends, unless the environment
// does (GOGC, GOMEMLIMIT).
func spendMemory(ctx context.Context, getenv func(string) string) {
	runtime.MemProfileRate = 0 // nobody can ask for a profile of memory
	if getenv("GOGC") != "" || getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(heapPercent)
	limit := limitFor(0)
	debug.SetMemoryLimit(limit)
	go func() {
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				limit = follow(limit, living())
			}
		}
	}()
}

// follow sets the limit for what lives now, if it differs by more than an
// eighth: setting it stops the world.
func follow(limit, live int64) int64 {
	want := limitFor(live)
	if d := want - limit; max(d, -d) <= limit/8 {
		return limit
	}
	debug.SetMemoryLimit(want)
	return want
}

// limitFor is what the program may take when so many bytes live: as much
// garbage as lives, at least.
func limitFor(live int64) int64 {
	if live > (math.MaxInt64-overhead)/2 {
		return math.MaxInt64
	}
	return max(spent, overhead+2*live)
}

// living is what was alive at the end of the last collection, in bytes.
func living() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return math.MaxInt64 // a runtime that does not say is not limited
	}
	return int64(min(s[0].Value.Uint64(), math.MaxInt64)) //nolint:gosec // bounded
}
