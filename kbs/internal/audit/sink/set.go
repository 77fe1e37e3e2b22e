package sink

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/pause"
)

// Intervals of the watch over log and cursors.
const (
	watchEvery = time.Second
	watchLeast = 50 * time.Millisecond // however fast the log grows
)

// Spec is one sink of a [Set].
type Spec struct {
	Name     string
	Type     string
	Sink     Sink
	Timeout  time.Duration // of one delivery
	Required bool
	// MaxLag and MaxEntries are how far a required sink may be behind: the age
	// of the oldest entry that it has not confirmed, and the number of those; 0
	// entries are no bound.
	MaxLag     time.Duration
	MaxEntries int64
}

// Config is what a set needs.
type Config struct {
	Store    store.Store
	Log      Log
	Recorder audit.Recorder // for entries about the sinks themselves; unguarded
	Holder   string         // names this replica among those of one store
	Now      func() time.Time
	Logger   *slog.Logger
}

// Status is how far one sink is. It is a snapshot, at most a second old while
// the set runs.
type Status struct {
	Name     string
	Type     string
	Required bool
	Next     int64 // index of the first entry that is not confirmed
	// Entries and Age of what is not confirmed: how many, and how old the
	// oldest is.
	Entries int64
	Age     time.Duration
	// Behind says that releases and changes are refused for this sink's sake.
	Behind bool
	// Leading says that this replica delivers. LastError is that of its last
	// delivery, nil if that went well or there was none.
	Leading   bool
	LastError error
}

// Set are all sinks of a broker. It is safe for concurrent use.
type Set struct {
	cfg     Config
	specs   []Spec
	runners []*runner
	status  atomic.Pointer[[]Status]
	oldest  map[string]aged // of watch only
}

// aged remembers the time of an entry.
type aged struct {
	index int64
	time  time.Time
}

// Open returns the set after looking at the cursors once: a broker that starts
// with a required sink behind is closed from the start. Nothing is delivered
// before Run.
func Open(ctx context.Context, cfg Config, specs []Spec) (*Set, error) {
	s := &Set{cfg: cfg, specs: specs, oldest: map[string]aged{}}
	for _, spec := range specs {
		s.runners = append(s.runners, &runner{
			sink: spec.Sink, log: cfg.Log, timeout: spec.Timeout, logger: cfg.Logger,
			lease: lease{st: cfg.Store, name: spec.Name, holder: cfg.Holder, length: leaseLength, now: cfg.Now},
			wake:  make(chan struct{}, 1), batch: maxBatch,
		})
	}
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Run delivers until ctx ends.
func (s *Set) Run(ctx context.Context) {
	if len(s.specs) == 0 {
		return
	}
	var wg sync.WaitGroup
	for _, r := range s.runners {
		wg.Go(func() { r.run(ctx) })
	}
	s.watch(ctx)
	wg.Wait()
}

// Status returns a snapshot of all sinks.
func (s *Set) Status() []Status {
	all := *s.status.Load()
	out := make([]Status, len(all))
	copy(out, all)
	for i, r := range s.runners {
		out[i].Leading = r.leading.Load()
		if last := r.last.Load(); last != nil {
			out[i].LastError = last.err
		}
	}
	return out
}

// Behind returns an error that names the required sinks which are too far
// behind, nil if there are none. It costs next to nothing.
func (s *Set) Behind() error {
	for _, st := range *s.status.Load() {
		if st.Behind {
			return fmt.Errorf("sink %s is %d entries behind, the oldest from %s ago", st.Name, st.Entries, st.Age.Round(time.Second))
		}
	}
	return nil
}

// Confirmed is the first entry that one of the sinks has not confirmed.
func (s *Set) Confirmed() int64 {
	least := int64(math.MaxInt64)
	for _, st := range *s.status.Load() {
		least = min(least, st.Next)
	}
	return least
}

// watch looks at log and cursors, soon after an entry was appended here, and
// now and then for what happened elsewhere.
func (s *Set) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.cfg.Log.Appended():
		case <-tick.C:
		}
		if err := s.look(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.ErrorContext(ctx, "audit sinks cannot be watched", slog.Any("error", err))
		}
		_ = pause.For(ctx, watchLeast) // ctx is looked at next
	}
}

// look takes a new snapshot, and tells the log of what changed.
func (s *Set) look(ctx context.Context) error {
	size, err := s.cfg.Log.Size(ctx)
	if err != nil {
		s.blind()
		return err
	}
	all := make([]Status, len(s.specs))
	told := make([]bool, len(s.specs))
	for i, spec := range s.specs {
		var c cursor
		err := s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
			c, _, err = readCursor(tx, spec.Name)
			return err
		})
		if err != nil {
			s.blind()
			return err
		}
		st := Status{Name: spec.Name, Type: spec.Type, Required: spec.Required, Next: c.Next, Entries: max(0, size-c.Next)}
		if st.Entries > 0 {
			if st.Age, err = s.age(ctx, spec.Name, c.Next); err != nil && spec.Required {
				st.Behind = true // an entry that cannot be read can never be confirmed
			}
		}
		st.Behind = st.Behind || spec.tooFar(st)
		all[i], told[i] = st, c.Behind
	}
	s.status.Store(&all)
	for i, st := range all {
		if st.Entries > 0 {
			select {
			case s.runners[i].wake <- struct{}{}:
			default:
			}
		}
		if st.Behind != told[i] {
			if err := s.tell(ctx, st); err != nil {
				return err
			}
		}
	}
	return nil
}

func (spec Spec) tooFar(st Status) bool {
	return spec.Required && st.Entries > 0 &&
		(st.Age > spec.MaxLag || (spec.MaxEntries > 0 && st.Entries > spec.MaxEntries))
}

// blind is the snapshot of a set that cannot see its cursors: who does not
// know whether a required sink confirmed must not assume that it did.
func (s *Set) blind() {
	all := make([]Status, len(s.specs))
	if old := s.status.Load(); old != nil {
		copy(all, *old)
	}
	for i, spec := range s.specs {
		all[i].Name, all[i].Type, all[i].Required = spec.Name, spec.Type, spec.Required
		all[i].Behind = spec.Required
	}
	s.status.Store(&all)
}

// age returns how old an entry is.
func (s *Set) age(ctx context.Context, name string, index int64) (time.Duration, error) {
	known, ok := s.oldest[name]
	if !ok || known.index != index {
		leaves, err := s.cfg.Log.Authentic(ctx, index, 1)
		if err != nil || len(leaves) == 0 {
			return 0, err
		}
		e, err := parse(leaves[0])
		if err != nil {
			return 0, err
		}
		known = aged{index, e.Entry.Time}
		s.oldest[name] = known
	}
	return max(0, s.cfg.Now().Sub(known.time)), nil
}

// tell records that a sink fell behind or caught up, once for all replicas.
func (s *Set) tell(ctx context.Context, st Status) error {
	kind, decision := api.AuditSinkBehind, "error"
	if !st.Behind {
		kind, decision = api.AuditSinkCaught, "change"
	}
	told := false
	err := s.cfg.Store.Update(ctx, func(tx store.Tx) error {
		told = false
		c, was, err := readCursor(tx, st.Name)
		if err != nil || c.Behind == st.Behind {
			return err
		}
		c.Behind = st.Behind
		if err := writeCursor(tx, st.Name, c, was); err != nil {
			return err
		}
		told = true
		_, err = s.cfg.Recorder.AppendTx(tx, api.AuditEntry{
			Kind: kind, Decision: decision, Subject: "kbs", Object: "audit/sink/" + st.Name,
			Details: map[string]string{"entries": fmt.Sprint(st.Entries), "age": st.Age.Round(time.Second).String()},
		})
		return err
	})
	if err != nil || !told {
		return err
	}
	attrs := []slog.Attr{slog.String("sink", st.Name), slog.Int64("entries", st.Entries), slog.Duration("age", st.Age)}
	if st.Behind {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "required audit sink is behind: releases and changes are refused", attrs...)
	} else {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "required audit sink has caught up", attrs...)
	}
	return nil
}
