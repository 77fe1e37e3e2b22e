package main

import (
	"runtime/debug"
	"testing"
)

// Whoever sets the collector's pace by the environment keeps it.
func TestSpareMemory(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	for _, c := range []struct {
		name string
		want int
	}{{"GOGC", 77}, {"GOMEMLIMIT", heapGrowth}, {"", heapGrowth}} {
		spareMemory(func(name string) string {
			if name == c.name {
				return "1"
			}
			return ""
		})
		if got := debug.SetGCPercent(77); got != c.want {
			t.Errorf("with %q set: %d", c.name, got)
		}
	}
}
