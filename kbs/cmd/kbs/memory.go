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
// So the heap may grow to what keeps a broker of usual size below 64 MB
// resident, of which its program takes about half, and always to twice what
// lives.
//
// The limit is for the moment before the pace follows a burst. It is no pace of
// its own: near it, Go gives pages back to the kernel and asks for them again,
// which costs a third of a release.
const (
	usualHeap   = 17 << 20 // bytes
	leastGrowth = 100      // percent
	mostGrowth  = 400
	spent       = 29 << 20 // bytes, of heap, stacks and the collector together
	overhead    = 10 << 20 // bytes, of all but the heap
	lookEvery   = 200 * time.Millisecond
)

// spendMemory sets the collector's pace until ctx ends, unless the environment
// does (GOGC, GOMEMLIMIT).
func spendMemory(ctx context.Context, getenv func(string) string) {
	runtime.MemProfileRate = 0 // nobody can ask for a profile of memory
	if getenv("GOGC") != "" || getenv("GOMEMLIMIT") != "" {
		return
	}
	p := pace{growth: leastGrowth, limit: limitFor(0)}
	p.set()
	go func() {
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				p.follow(living())
			}
		}
	}()
}

// pace is what the collector was told.
type pace struct {
	growth int // percent of what lives
	limit  int64
}

func (p *pace) set() {
	debug.SetGCPercent(p.growth)
	debug.SetMemoryLimit(p.limit)
}

// follow sets the pace for what lives now, if it differs by more than an eighth:
// setting it stops the world.
func (p *pace) follow(live int64) {
	growth, limit := growthFor(live), limitFor(live)
	if abs(growth-p.growth) <= p.growth/8 && abs(limit-p.limit) <= p.limit/8 {
		return
	}
	p.growth, p.limit = growth, limit
	p.set()
}

func abs[N int | int64](n N) N { return max(n, -n) }

// growthFor is how many percent of what lives the heap may grow.
func growthFor(live int64) int {
	if live <= 0 || live >= usualHeap {
		return leastGrowth
	}
	return int(min(max((usualHeap-live)*100/live, leastGrowth), mostGrowth))
}

// limitFor is what the program may take when so many bytes live: a little more
// than the pace alone would make it.
func limitFor(live int64) int64 {
	if live > (math.MaxInt64-overhead)/3 {
		return math.MaxInt64
	}
	return max(spent, overhead+2*live+live/4)
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
