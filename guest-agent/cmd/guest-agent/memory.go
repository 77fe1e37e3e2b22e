package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// heapGrowth is by how much the heap may grow, in percent of what lives, before
// it is collected. Most of what lives while images are pulled are windows and
// buffers, of which little becomes garbage: at Go's default of 100 the windows
// of zstd would be paid for twice, and a third of it costs no time that could be
// measured (`make bench-image`, whose imagepull has the same number).
const heapGrowth = 35

// How much may be allocated between two collections at least, in bytes. An agent
// without a pull has a small heap, of which a third is a few calls' worth: a
// chatty container would have it collected every other millisecond. The room that
// this takes (`make bench-agent`) would let an agent that merely attests scatter
// what lives over three times the pages, which then stay: it has less, until many
// collections in a row came soon after each other.
const (
	calmRoom = 2 << 20
	busyRoom = 8 << 20

	busyAfter  = 10
	busyWithin = 20 * time.Millisecond
)

// spareMemory sets that, unless the environment does. A limit (GOMEMLIMIT) stands beside it.
func spareMemory(getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
		followHeap()
	}
}

// growth is the percentage that gives a heap of that many living bytes that room.
func growth(live, room uint64) int {
	return max(heapGrowth, int(room*100/max(live, 1<<20)))
}

// quiet is how long nothing was collected when the memory that is free is given
// back to the guest: Go itself takes minutes for that.
const quiet = time.Second

// pace follows the heap.
type pace struct {
	mu      sync.Mutex
	set     int       // percentage in force
	last    time.Time // of the last collection
	row     int       // collections that came soon after each other, until now
	ours    bool      // the next collection is ours, made to give memory back
	restful *time.Timer
}

// followHeap adjusts the percentage after each collection, which the death of an
// object tells, and gives memory back when there have been none for a while.
func followHeap() {
	p := &pace{set: heapGrowth}
	p.restful = time.AfterFunc(quiet, p.rest)
	p.watch()
}

func (p *pace) watch() {
	runtime.SetFinalizer(&struct{ _ [16]byte }{}, func(any) {
		p.collected()
		p.watch()
	})
}

// collected leaves small changes, for each one stops the program.
func (p *pace) collected() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	p.mu.Lock()
	defer p.mu.Unlock()
	if want := growth(live[0].Value.Uint64(), p.room(time.Now())); want > p.set+p.set/8 || want < p.set-p.set/8 {
		debug.SetGCPercent(want)
		p.set = want
	}
	if !p.ours {
		p.restful.Reset(quiet)
	}
	p.ours = false
}

// room tells how much may be allocated until the next collection, after one at now.
// Whoever became busy stays so until it rests.
func (p *pace) room(now time.Time) uint64 {
	soon := now.Sub(p.last) < busyWithin
	p.last = now
	switch {
	case p.ours:
		p.row = 0
	case p.row >= busyAfter:
	case soon:
		p.row++
	default:
		p.row = 0
	}
	if p.row >= busyAfter {
		return busyRoom
	}
	return calmRoom
}

func (p *pace) rest() {
	p.mu.Lock()
	p.ours = true
	p.mu.Unlock()
	debug.FreeOSMemory()
}
