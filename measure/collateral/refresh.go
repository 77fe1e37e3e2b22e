package collateral

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// due is when an item should be renewed: after two thirds of its life, and for
// what its publisher renews often, within the configured time. A certificate
// lives for years and is not published anew before.
func (s *Store) due(i Item, f facts) time.Time {
	start := i.Fetched
	if start.IsZero() || start.After(f.until) {
		start = f.from
	}
	life := f.until.Sub(start) * 2 / 3
	r, _ := i.Name.parse() // it was parsed when it came
	if r.kind != kindVCEK && r.kind != kindAMDChain {
		life = min(life, s.cfg.RefreshEvery)
	}
	return start.Add(life)
}

// wake tells Run to look.
func (s *Store) wake() {
	select {
	case s.poke <- struct{}{}:
	default: // it was told already
	}
}

// idle is how long Run sleeps at most: what others put into the directory or
// memory in the meantime has its own time.
const idle = time.Hour

// Run renews what is at hand before it ends, until ctx ends. Without it, what
// ended is fetched while somebody waits for it.
func (s *Store) Run(ctx context.Context) {
	s.running.Store(true)
	defer s.running.Store(false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.quit:
			return
		case <-timer.C:
		case <-s.poke:
		}
		timer.Reset(s.Refresh(ctx))
	}
}

// Refresh renews everything that is due, and returns how long nothing will be.
func (s *Store) Refresh(ctx context.Context) time.Duration {
	names, _ := s.dueNames()
	for _, n := range names {
		if ctx.Err() != nil {
			break
		}
		if _, err := s.fetch(ctx, n); err != nil && !errors.Is(err, context.Canceled) {
			s.cfg.Logger.WarnContext(ctx, "collateral was not renewed", slog.String("event_id", "collateral.refresh"),
				slog.String("name", string(n)), slog.Any("error", err))
		}
	}
	_, wait := s.dueNames()
	return wait
}

// dueNames lists what is due, and how long until the next will be. What failed
// waits for its time.
func (s *Store) dueNames() ([]Name, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wait := s.cfg.Now(), idle
	var out []Name
	for n, e := range s.entries {
		at := e.due
		if failed, ok := s.failures[n]; ok && failed.until.After(at) {
			at = failed.until
		}
		if left := at.Sub(now); left > 0 {
			wait = min(wait, left)
		} else {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, max(wait, time.Second)
}

// Status is what the store knows of one item.
type Status struct {
	Name    Name      `json:"name"`
	Source  string    `json:"source"`
	Fetched time.Time `json:"fetched"`
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Due     time.Time `json:"due"`
	Problem string    `json:"problem,omitempty"` // of the last fetch
}

// Status tells of everything in memory, by name. Certificates of chips that
// nobody asked for since the start are not in memory.
func (s *Store) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.entries))
	for n, e := range s.entries {
		st := Status{Name: n, Source: e.item.Source, Fetched: e.item.Fetched, From: e.facts.from.UTC(), Until: e.facts.until.UTC(), Due: e.due.UTC()}
		if f, ok := s.failures[n]; ok {
			st.Problem = f.err.Error()
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return out
}
