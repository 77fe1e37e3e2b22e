package world

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// laps says where the time of a guest goes. Nil is a guest that nobody asks about.
type laps struct {
	mu          sync.Mutex
	begin, last time.Time
	told        []string
}

func newLaps() *laps {
	now := time.Now()
	return &laps{begin: now, last: now}
}

// lap names the phase that is over.
func (l *laps) lap(phase string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.told = append(l.told, fmt.Sprintf("%s %.2f", phase, now.Sub(l.last).Seconds()))
	l.last = now
}

// String is all phases with their seconds, and their sum.
func (l *laps) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%.2f s: %s", l.last.Sub(l.begin).Seconds(), strings.Join(l.told, ", "))
}

// tell says where the time of a guest went, to whom it may concern.
func (w *World) tell(what string, l *laps) {
	if w.Tell != nil {
		w.Tell("%s took %v", what, l)
	}
}
