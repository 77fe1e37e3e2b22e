package sink

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/pause"
)

// Bounds of what one delivery carries: they bound the memory that a sink takes.
const (
	maxBatch      = 512
	maxBatchBytes = 1 << 20
	readAhead     = 64 // entries read at once
)

// Timing of delivery.
const (
	leaseLength  = 30 * time.Second
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 30 * time.Second
	maxAsked     = 5 * time.Minute // of a Retry-After
)

// outcome is what became of the last delivery.
type outcome struct {
	err  error
	when time.Time
}

// runner delivers to one sink.
type runner struct {
	sink    Sink
	log     Log
	lease   lease
	timeout time.Duration
	logger  *slog.Logger
	wake    chan struct{} // the log has grown
	last    atomic.Pointer[outcome]
	leading atomic.Bool
	batch   int // how many events the far side takes
}

// run delivers until ctx ends.
func (r *runner) run(ctx context.Context) {
	backoff := firstBackoff
	for ctx.Err() == nil {
		moved, err := r.turn(ctx)
		r.leading.Store(false)
		if errors.Is(err, errLost) {
			_ = pause.For(ctx, r.lease.length/3) // ctx is looked at anyway
			continue
		}
		_ = r.sink.Close()
		if rerr := r.lease.release(context.WithoutCancel(ctx)); rerr != nil {
			r.logger.WarnContext(ctx, "lease of an audit sink cannot be released", slog.String("sink", r.lease.name), slog.Any("error", rerr))
		}
		if ctx.Err() != nil {
			return
		}
		if moved {
			backoff = firstBackoff
		}
		r.note(err)
		r.logger.WarnContext(ctx, "audit sink does not take entries", slog.String("sink", r.lease.name), slog.Any("error", err))
		_ = pause.For(ctx, delay(backoff, err))
		backoff = min(2*backoff, maxBackoff)
	}
}

// delay is how long to wait after a failure: about as long as the backoff
// says, or as the far side asked.
func delay(backoff time.Duration, err error) time.Duration {
	d := backoff/2 + chance(backoff/2)
	if asked, ok := errors.AsType[*retryError](err); ok {
		d = max(d, min(asked.after, maxAsked))
	}
	return d
}

// chance is a time up to most, so that replicas and sinks do not come in step.
func chance(most time.Duration) time.Duration {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(most+1))
}

func (r *runner) note(err error) { r.last.Store(&outcome{err, r.lease.now()}) }

// turn takes the lease and delivers for as long as all goes well. It reports
// whether anything was delivered.
func (r *runner) turn(ctx context.Context) (moved bool, err error) {
	c, err := r.lease.hold(ctx, 0, 0)
	for err == nil {
		r.leading.Store(true)
		var batch []Event
		if batch, err = r.read(ctx, c.Next); errors.Is(err, audit.ErrArchived) {
			c, err = r.skip(ctx, c)
			continue
		}
		if err != nil {
			return moved, err
		}
		if len(batch) == 0 {
			if err = r.idle(ctx); err == nil && c.Until.Sub(r.lease.now()) < r.lease.length/2 {
				c, err = r.lease.hold(ctx, 0, 0)
			}
			continue
		}
		if err = r.deliver(ctx, batch); err != nil {
			return moved, err
		}
		moved = true
		r.note(nil)
		c, err = r.lease.hold(ctx, c.Next, int64(len(batch)))
	}
	return moved, err
}

// skip goes on where the log does: a sink that is new, or was no part of the
// configuration for a while, does not get what was archived before.
func (r *runner) skip(ctx context.Context, c cursor) (cursor, error) {
	a, err := r.log.Archived(ctx)
	if err != nil {
		return c, err
	}
	r.logger.WarnContext(ctx, "audit sink begins after what is archived", slog.String("sink", r.lease.name),
		slog.Int64("from", c.Next), slog.Int64("to", a.Size))
	return r.lease.hold(ctx, c.Next, a.Size-c.Next)
}

// idle waits for the log to grow, or for the lease to need attention.
func (r *runner) idle(ctx context.Context) error {
	t := time.NewTimer(r.lease.length / 3)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.wake:
	case <-t.C:
	}
	return nil
}

// deliver gives the sink less time than the lease has left, so that no two
// replicas deliver at once.
func (r *runner) deliver(ctx context.Context, batch []Event) error {
	ctx, cancel := context.WithTimeout(ctx, min(r.timeout, r.lease.length/2))
	defer cancel()
	err := r.sink.Deliver(ctx, batch)
	switch {
	case err == nil:
		r.batch = min(maxBatch, 2*r.batch)
	case errors.Is(err, ErrTooLarge):
		r.batch = max(1, len(batch)/2)
	}
	return err
}

// read returns the next events, within the bounds of a batch. What is not
// authentic is not delivered, nor is anything after it.
func (r *runner) read(ctx context.Context, from int64) ([]Event, error) {
	var batch []Event
	for size := 0; len(batch) < r.batch && size < maxBatchBytes; {
		want := min(readAhead, r.batch-len(batch))
		leaves, err := r.log.Authentic(ctx, from+int64(len(batch)), want)
		for _, leaf := range leaves {
			e, perr := parse(leaf)
			if perr != nil {
				return nil, perr
			}
			batch = append(batch, e)
			size += len(leaf)
		}
		if len(leaves) < want {
			if len(batch) == 0 {
				return nil, err
			}
			break // the next batch begins with the error
		}
	}
	return batch, nil
}
