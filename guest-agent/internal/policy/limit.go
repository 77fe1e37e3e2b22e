package policy

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// Limits of one evaluation. They are enforced by asking it to end, which it does
// at its next step.
const (
	deadline = 2 * time.Second
	// maxGrowth is how much the heap of the process may grow, in bytes, while a
	// slow evaluation runs. It is a fuse, not an account: others allocate too.
	maxGrowth = 64 << 20
	// grace is how long an evaluation may take to notice that it has to end.
	grace = 500 * time.Millisecond
	// slow is how long one runs unwatched. Nearly all are done by then.
	slow = 10 * time.Millisecond
)

var (
	errDeadline = errors.New("it took too long")
	errGrowth   = errors.New("it used too much memory")
	errStuck    = errors.New("an evaluation did not end when it was told to; nothing is evaluated any more")
)

// limited evaluates on a goroutine of its own, because Go cannot end one that does
// not listen: such a one is left behind, and the error is errStuck.
func limited[T any](ctx context.Context, do func(context.Context, topdown.Cancel) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	cancel, done := topdown.NewCancel(), make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil { // of the library's: no hostile request may end the agent
				o.err = fmt.Errorf("the evaluation panicked: %v", p)
			}
			done <- o
		}()
		o.value, o.err = do(ctx, cancel)
	}()
	timer := time.NewTimer(slow)
	defer timer.Stop()
	select {
	case o := <-done:
		return o.value, o.err
	case <-timer.C:
	}
	tick := time.NewTicker(slow)
	defer tick.Stop()
	why := error(nil)
	for base, end := heap(), time.Now().Add(deadline-slow); why == nil; {
		select {
		case o := <-done:
			return o.value, o.err
		case <-ctx.Done():
			why = ctx.Err()
		case now := <-tick.C:
			switch {
			case now.After(end):
				why = errDeadline
			case heap() > base+maxGrowth:
				why = errGrowth
			}
		}
	}
	cancel.Cancel()
	end := time.NewTimer(grace)
	defer end.Stop()
	var none T
	select {
	case <-done:
		return none, why
	case <-end.C:
		return none, fmt.Errorf("%w: %w", why, errStuck)
	}
}

// heap returns the bytes of the process's live and not yet swept objects.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
