// Package pullmeter turns the progress of image pulls into metrics and log
// lines. The host reads both: they hold counts, times, rates and digests, which
// it knows from the traffic, and neither names nor reasons.
package pullmeter

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/image/pull"
)

// sayEvery is how often the log tells of a pull that goes on.
const sayEvery = 10 * time.Second

// A Meter counts what pulls do. It is safe for concurrent use; Observe never
// blocks for long.
type Meter struct {
	log *slog.Logger
	now func() time.Time

	mu    sync.Mutex
	total totals
	pulls map[int64]*underway
}

// totals are what the metrics say.
type totals struct {
	pulls    map[pull.Phase]int64 // how they ended: pulled or failed
	layers   map[pull.Phase]int64 // committed, cached or failed
	received int64                // bytes of layers
	unpacked int64                // bytes of layers' archives
	image    map[pull.Phase]time.Duration
	layer    map[pull.Phase]time.Duration
}

// underway is one pull.
type underway struct {
	begun  time.Time
	said   time.Time
	step   step
	layers map[int]*layer
	cached int
	bytes  int64
	all    int64 // bytes of all layers
	count  int   // of layers
}

// step is a phase and when it began.
type step struct {
	phase pull.Phase
	since time.Time
}

type layer struct {
	step
	received, unpacked int64
}

// New returns a meter that logs to log.
func New(log *slog.Logger, now func() time.Time) *Meter {
	return &Meter{log: log, now: now, pulls: map[int64]*underway{}, total: totals{
		pulls: map[pull.Phase]int64{}, layers: map[pull.Phase]int64{}, image: map[pull.Phase]time.Duration{}, layer: map[pull.Phase]time.Duration{},
	}}
}

// Observe takes the events of pulls, see [pull.Config.Progress].
func (m *Meter) Observe(e pull.Event) {
	m.mu.Lock()
	now := m.now()
	u := m.pulls[e.Pull]
	if u == nil {
		u = &underway{begun: now, said: now, layers: map[int]*layer{}}
		m.pulls[e.Pull] = u
	}
	var say func()
	if e.Layer >= 0 {
		say = m.layer(u, e, now)
	} else {
		say = m.image(u, e, now)
	}
	if say == nil && now.Sub(u.said) >= sayEvery {
		u.said = now
		attrs := u.attrs(now)
		say = func() { m.log.LogAttrs(context.Background(), slog.LevelInfo, "image pull goes on", attrs...) }
	}
	m.mu.Unlock()
	if say != nil {
		say()
	}
}

// image takes an event of the image as a whole, and returns what is to be said.
func (m *Meter) image(u *underway, e pull.Event, now time.Time) func() {
	u.step.end(m.total.image, now)
	u.step = step{e.Phase, now}
	switch e.Phase {
	case pull.PhaseAccepted:
		u.all, u.count = e.Total, e.Layers
		return func() {
			m.log.LogAttrs(context.Background(), slog.LevelInfo, "image pull begins",
				slog.String("digest", e.Digest.String()), slog.Int("layers", e.Layers), slog.Int64("bytes", e.Total))
		}
	case pull.PhasePulled, pull.PhaseFailed:
		delete(m.pulls, e.Pull)
		m.total.pulls[e.Phase]++
		attrs := u.attrs(now)
		if e.Phase == pull.PhaseFailed {
			return func() { m.log.LogAttrs(context.Background(), slog.LevelInfo, "image pull failed", attrs...) }
		}
		attrs = append([]slog.Attr{slog.String("digest", e.Digest.String())}, attrs...)
		return func() { m.log.LogAttrs(context.Background(), slog.LevelInfo, "image pulled", attrs...) }
	default:
		return nil
	}
}

// layer takes an event of one layer, and returns what is to be said.
func (m *Meter) layer(u *underway, e pull.Event, now time.Time) func() {
	l := u.layers[e.Layer]
	if l == nil {
		l = &layer{}
		u.layers[e.Layer] = l
	}
	if l.phase != e.Phase {
		l.end(m.total.layer, now)
		l.step = step{e.Phase, now}
	}
	if e.Phase == pull.PhaseFetching || e.Phase == pull.PhaseCommitted {
		m.total.received += max(e.Bytes-l.received, 0)
		m.total.unpacked += max(e.Unpacked-l.unpacked, 0)
		u.bytes += max(e.Bytes-l.received, 0)
		l.received, l.unpacked = max(e.Bytes, l.received), max(e.Unpacked, l.unpacked)
	}
	switch e.Phase {
	case pull.PhaseCached:
		u.cached++
	case pull.PhaseCommitted, pull.PhaseFailed:
	default:
		return nil
	}
	m.total.layers[e.Phase]++
	if e.Phase == pull.PhaseFailed {
		return nil // the image fails too
	}
	attrs := []slog.Attr{slog.String("digest", e.Digest.String()), slog.String("phase", string(e.Phase)), slog.Int64("bytes", l.received), slog.Int64("unpacked", l.unpacked)}
	return func() { m.log.LogAttrs(context.Background(), slog.LevelDebug, "image layer", attrs...) }
}

// end adds the time since the phase began.
func (s step) end(to map[pull.Phase]time.Duration, now time.Time) {
	if s.phase != "" {
		to[s.phase] += now.Sub(s.since)
	}
}

func (u *underway) attrs(now time.Time) []slog.Attr {
	took := now.Sub(u.begun)
	rate := int64(0)
	if took > 0 {
		rate = int64(float64(u.bytes) / took.Seconds())
	}
	return []slog.Attr{
		slog.Int("layers", u.count), slog.Int("cached", u.cached), slog.Int64("received", u.bytes), slog.Int64("bytes", u.all),
		slog.Float64("seconds", took.Seconds()), slog.Int64("bytes_per_second", rate),
	}
}

// snapshot copies what the metrics say.
func (m *Meter) snapshot() (t totals, pulls, layers int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t = m.total
	for _, c := range []*map[pull.Phase]int64{&t.pulls, &t.layers} {
		*c = maps.Clone(*c)
	}
	for _, c := range []*map[pull.Phase]time.Duration{&t.image, &t.layer} {
		*c = maps.Clone(*c)
	}
	for _, u := range m.pulls {
		for _, l := range u.layers {
			switch l.phase {
			case pull.PhaseCached, pull.PhaseCommitted, pull.PhaseFailed:
			default:
				layers++
			}
		}
	}
	return t, len(m.pulls), layers
}
