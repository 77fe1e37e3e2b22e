package imagetest

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Clock is a clock on which nobody waits: a sleep ends at once and is noted.
// Timers run on the system's time, except one that [Clock.FireNext] is set on.
type Clock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
	fire  bool
	crawl time.Duration
	odd   bool
}

// Now is a fixed time plus all that was slept, and what [Clock.Crawl] adds.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.odd = !c.odd; !c.odd {
		c.now = c.now.Add(c.crawl)
	}
	return time.Unix(1_700_000_000, 0).Add(c.now.Sub(time.Time{}))
}

// Sleep notes d.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slept = append(c.slept, d)
	c.now = c.now.Add(d)
	return ctx.Err()
}

// AfterFunc starts a timer.
func (c *Clock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fire {
		c.fire = false
		d = 0
	}
	return time.AfterFunc(d, f).Stop
}

// FireNext lets the next timer that is started run out at once.
func (c *Clock) FireNext() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fire = true
}

// Slept returns all sleeps so far.
func (c *Clock) Slept() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.slept)
}

// Crawl makes every second look at the clock find d gone by: whoever looks before
// and after what it does has waited all the time.
func (c *Clock) Crawl(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crawl = d
}
