package registry

import (
	"context"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/pause"
)

// A Clock is the time that retries and stall detection go by.
type Clock interface {
	Now() time.Time
	// Sleep waits for d. It returns early, with the context's error, when ctx ends.
	Sleep(ctx context.Context, d time.Duration) error
	// AfterFunc calls f in its own goroutine after d, unless stop is called first.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) Sleep(ctx context.Context, d time.Duration) error { return pause.For(ctx, d) }

func (systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}
