// Package health answers the probes: is the process alive, has it started, and
// can it serve. A check has a name that anyone may see; why it failed is in the
// log alone.
package health

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Check is one thing that must work for the broker to serve.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
	// Advisory checks are shown and logged, and do not make the broker unready:
	// what they find is no better on another replica.
	Advisory bool
}

// Result is the outcome of a check.
type Result struct {
	Name     string
	OK       bool
	Advisory bool
}

// Deadline limits all checks of one probe together.
const Deadline = 3 * time.Second

// keep is how long an outcome is believed: a probe costs little, however
// often it is asked.
const keep = time.Second

// Probes runs the checks. It is safe for concurrent use.
type Probes struct {
	now    func() time.Time
	logger *slog.Logger
	checks []Check

	started  atomic.Bool
	draining atomic.Bool

	mu   sync.Mutex
	at   time.Time
	last []Result
}

// New returns probes over the checks, in their order.
func New(now func() time.Time, logger *slog.Logger, checks ...Check) *Probes {
	return &Probes{now: now, logger: logger, checks: checks}
}

// Start says that the broker serves now.
func (p *Probes) Start() { p.started.Store(true) }

// Drain says that it is about to stop: from now on it is not ready, so that
// whoever sends it work looks elsewhere while it finishes what it has.
func (p *Probes) Drain() { p.draining.Store(true) }

// Started reports whether it has begun to serve.
func (p *Probes) Started() bool { return p.started.Load() }

// Ready runs the checks, or repeats what they said a moment ago.
func (p *Probes) Ready(ctx context.Context) (results []Result, ok bool) {
	results = append([]Result{{Name: "started", OK: p.started.Load()}, {Name: "not-draining", OK: !p.draining.Load()}}, p.run(ctx)...)
	ok = true
	for _, r := range results {
		ok = ok && (r.OK || r.Advisory)
	}
	return results, ok
}

func (p *Probes) run(ctx context.Context) []Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if p.last != nil && now.Sub(p.at) < keep && !now.Before(p.at) {
		return p.last
	}
	// The outcome is for whoever asks in the next moment too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Deadline)
	defer cancel()
	out := make([]Result, len(p.checks))
	for i, c := range p.checks {
		err := c.Run(ctx)
		out[i] = Result{c.Name, err == nil, c.Advisory}
		if err != nil {
			p.logger.WarnContext(ctx, "not ready", slog.String("event_id", "health.failed"), slog.String("check", c.Name), slog.Any("error", err))
		}
	}
	p.at, p.last = now, out
	return out
}
