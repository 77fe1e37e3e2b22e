package policy

import (
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/vouchsafe-cc/vouchsafe/kbs/policylang"
)

// HostConfig says what a host remembers of the decisions of its engines.
type HostConfig struct {
	Now    func() time.Time
	Logger *slog.Logger
	// Record keeps the inputs of decisions for replays.
	Record bool
	// MaxDecisions is how many distinct ones are kept for each tenant, and
	// KeepDecisions for how long after they were last seen.
	MaxDecisions  int
	KeepDecisions time.Duration
	// PerSecond limits how many decisions are recorded; more are dropped and
	// counted. 0 means DefaultPerSecond.
	PerSecond int
}

// DefaultPerSecond keeps the price of recording below one part in a hundred
// of a core, whatever the load.
const DefaultPerSecond = 100

// Host is what the engines of a process share: the goroutines that evaluate,
// the compiled policies, and the one that watches decisions after they were
// made. An engine belongs to one tenant and may be dropped at any time; the
// host is closed.
type Host struct {
	runner   *runner
	programs *programs
	recorder *recorder
	closing  sync.Once
}

// A runner puts questions to programs, within limits.
type runner struct{ *policylang.Runner }

const (
	// idleWorkers is how many goroutines wait for an evaluation at most.
	idleWorkers = 16
	// maxGrowth is how much the heap of the process may grow, in bytes, while a
	// slow evaluation runs.
	maxGrowth = 256 << 20
)

// NewHost returns a host.
func NewHost(cfg HostConfig) *Host {
	if cfg.PerSecond <= 0 {
		cfg.PerSecond = DefaultPerSecond
	}
	h := &Host{runner: &runner{policylang.NewRunner(idleWorkers, maxGrowth)}, programs: newPrograms()}
	h.recorder = &recorder{
		cfg: cfg, limit: rate.NewLimiter(rate.Limit(cfg.PerSecond), cfg.PerSecond),
		queue: make(chan observation, queueLength), settle: make(chan chan struct{}), stop: make(chan struct{}),
		ended: make(chan struct{}), pending: map[*Documents]*batch{}, lost: map[lostShadow]int64{},
	}
	go h.recorder.loop()
	return h
}

// Engine returns an engine over the stored policies and reference values of
// one tenant.
func (h *Host) Engine(docs *Documents, refs References) *Engine {
	return &Engine{Host: h, docs: docs, refs: refs}
}

// Dropped counts the decisions that were not recorded or shown to a shadow,
// because there were too many at once.
func (h *Host) Dropped() int64 { return h.recorder.dropped.Load() }

// Close writes what was recorded, and ends all goroutines but those of
// policies that ignored their end. The stores must still be open; no engine
// may be asked any more.
func (h *Host) Close() {
	h.closing.Do(func() {
		close(h.recorder.stop)
		<-h.recorder.ended
		h.runner.Close()
	})
}
