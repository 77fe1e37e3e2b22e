package main

import "runtime/debug"

// heapGrowth is by how much the heap may grow, in percent of what lives, before
// it is collected. Most of what lives while images are pulled are windows and
// buffers, of which little becomes garbage: at Go's default of 100 the windows
// of zstd would be paid for twice, and a third of it costs no time that could be
// measured (`make bench-image`, whose imagepull has the same number).
const heapGrowth = 35

// spareMemory sets that, unless the environment does. A limit (GOMEMLIMIT) stands beside it.
func spareMemory(getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
}
