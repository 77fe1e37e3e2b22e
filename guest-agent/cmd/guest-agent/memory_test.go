package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
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

// A small heap gets its room, a large one its share.
func TestGrowth(t *testing.T) {
	for live, want := range map[uint64]int{0: 800, 4 << 20: 200, 8 << 20: 100, 24 << 20: heapGrowth, 1 << 30: heapGrowth} {
		if got := growth(live, busyRoom); got != want {
			t.Errorf("%d living bytes: %d %%, want %d", live, got, want)
		}
	}
	if got := growth(4<<20, calmRoom); got != 50 {
		t.Errorf("calm: %d %%", got)
	}
}

// Many collections soon after each other, and none that came later among them,
// give room until the next rest.
func TestRoom(t *testing.T) {
	var p pace
	now := time.Now()
	after := func(d time.Duration, times int) (room uint64) {
		for range times {
			now = now.Add(d)
			room = p.room(now)
		}
		return room
	}
	const soon, later = busyWithin - 1, busyWithin
	for _, c := range []struct {
		name  string
		d     time.Duration
		times int
		rests bool
		want  uint64
	}{
		{"nearly in a row", soon, busyAfter - 1, false, calmRoom},
		{"later", later, 1, false, calmRoom},
		{"nearly again", soon, busyAfter - 1, false, calmRoom},
		{"in a row", soon, 1, false, busyRoom},
		{"later, still busy", later, 3, false, busyRoom},
		{"after a rest", soon, 1, true, calmRoom},
		{"calm again", soon, busyAfter - 1, false, calmRoom},
	} {
		p.ours = c.rests
		got := after(c.d, c.times)
		p.ours = false
		if got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, got, c.want)
		}
	}
}

// Each collection leads to another look at the heap, and the one that gives
// memory back is not followed by the next.
func TestPace(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	p := &pace{set: 100_000}
	p.restful = time.AfterFunc(time.Hour, func() {})
	p.watch()
	look := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.set
	}
	deadline := time.After(20 * time.Second)
	for look() == 100_000 {
		runtime.GC()
		select {
		case <-deadline:
			t.Fatal("nobody looked")
		default:
		}
	}
	if got := look(); got < heapGrowth || got > 800 {
		t.Errorf("%d %%", got)
	}
	p.restful.Stop()
	p.mu.Lock()
	p.ours = true
	p.mu.Unlock()
	p.collected() // of its own collection
	if p.restful.Stop() {
		t.Error("a collection of its own leads to another")
	}
	p.collected()
	if !p.restful.Stop() {
		t.Error("a collection leads to no rest")
	}
}
