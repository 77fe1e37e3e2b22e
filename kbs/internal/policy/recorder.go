package policy

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Limits of what is remembered before it is written. Loss is allowed here: the
// audit log has every decision, this only helps to judge candidates.
const (
	queueLength = 512
	batchLength = 256 // distinct records that make a write due
	writeEvery  = 2 * time.Second
	writeLimit  = 5 * time.Second
)

// recorder watches decisions after they were made. One goroutine asks the
// shadows, strips and digests inputs, and writes in batches, so that the
// answer to a guest waits for none of it.
type recorder struct {
	cfg     HostConfig
	limit   *rate.Limiter
	dropped atomic.Int64
	queue   chan observation
	settle  chan chan struct{} // write now, then close the one that was sent
	stop    chan struct{}
	ended   chan struct{}

	pending map[*Documents]*batch // by tenant; of the goroutine alone
	due     <-chan time.Time

	mu   sync.Mutex
	lost map[lostShadow]int64 // decisions that a shadow was not asked about
}

type lostShadow struct {
	docs *Documents
	kind Kind
	of   shadowed
}

// observation is a decision that was made.
type observation struct {
	engine  *Engine
	q       Question
	policy  string
	verdict api.Verdict
	record  bool
	shadow  *shadowed // nil: there is none
}

// observe takes note of a decision, or drops it.
func (r *recorder) observe(o observation) {
	o.record = r.cfg.Record && r.limit.Allow()
	if r.cfg.Record && !o.record {
		r.dropped.Add(1)
	}
	if !o.record && o.shadow == nil {
		return
	}
	select {
	case r.queue <- o:
	default:
		r.dropped.Add(1)
		if o.shadow != nil {
			r.mu.Lock()
			r.lost[lostShadow{o.engine.docs, o.q.Kind, *o.shadow}]++
			r.mu.Unlock()
		}
	}
}

func (r *recorder) loop() {
	defer close(r.ended)
	for {
		select {
		case o := <-r.queue:
			r.take(o)
		case <-r.due:
			r.write()
		case done := <-r.settle:
			r.drain()
			close(done)
		case <-r.stop:
			r.drain()
			return
		}
	}
}

// drain takes what is queued now, and writes.
func (r *recorder) drain() {
	for {
		select {
		case o := <-r.queue:
			r.take(o)
			continue
		default:
		}
		r.write()
		return
	}
}

func (r *recorder) take(o observation) {
	b := r.batch(o.engine.docs)
	if o.record {
		b.record(o, r.cfg.Now().UTC())
	}
	if o.shadow != nil {
		b.compare(o, r.cfg.Now().UTC())
	}
	if r.due == nil {
		r.due = time.After(writeEvery)
	}
	if b.len() >= batchLength {
		r.write()
	}
}

func (r *recorder) batch(docs *Documents) *batch {
	b := r.pending[docs]
	if b == nil {
		b = newBatch()
		r.pending[docs] = b
	}
	return b
}

func (r *recorder) write() {
	r.due = nil
	r.mu.Lock()
	lost := r.lost
	r.lost = map[lostShadow]int64{}
	r.mu.Unlock()
	for l, n := range lost {
		r.batch(l.docs).notes(l.kind, l.of, r.cfg.Now().UTC()).dropped += n
	}
	for docs, b := range r.pending {
		ctx, cancel := context.WithTimeout(context.Background(), writeLimit)
		if err := docs.writeBatch(ctx, b, r.cfg); err != nil {
			r.dropped.Add(int64(b.len()))
			r.cfg.Logger.Warn("decisions were not recorded", slog.Any("error", err))
		}
		cancel()
	}
	clear(r.pending)
}

// Settle returns when all that this process has noted so far is written.
func (h *Host) Settle(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case h.recorder.settle <- done:
	case <-h.recorder.ended: // and wrote before
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
