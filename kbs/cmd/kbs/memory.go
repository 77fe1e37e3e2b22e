package main

import "runtime/debug"

// heapPercent is how much a broker's heap may grow before it is collected, in
// percent of what is live. A busy broker has a few megabytes that live and makes
// a hundred times as much garbage in a second; at Go's default of 100 it would
// spend a quarter of its time on collecting, to save memory that no machine
// lacks. The soak test holds it below 64 MB.
const heapPercent = 400

// spendMemory sets the collector's pace, unless the environment does (GOGC).
func spendMemory(getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(heapPercent)
	}
}
