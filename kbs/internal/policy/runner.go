package policy

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// Limits of one evaluation. Those of time and memory are enforced by asking
// the evaluation to end, which it does at its next step; one that is inside a
// single endless step is left behind after the grace, and its policy is not
// evaluated again.
const (
	// Deadline limits the time.
	Deadline = 2 * time.Second
	// maxGrowth limits by how many bytes the heap of the process may grow
	// while a slow evaluation runs. It is a fuse, not an account: others
	// allocate as well.
	maxGrowth = 256 << 20
	// grace is how long an evaluation may take to notice that it has to end.
	grace = 500 * time.Millisecond
	// slow is how long an evaluation runs unwatched. Nearly all are done by
	// then.
	slow = 10 * time.Millisecond
)

// Reasons for the end of an evaluation.
var (
	errDeadline = errors.New("it took too long")
	errGrowth   = errors.New("it used too much memory")
	errPanic    = errors.New("the evaluation panicked")
	errStuck    = errors.New("it did not end when it was told to; this version is not evaluated again")
)

// runner evaluates on goroutines of its own, because Go cannot end a goroutine
// that does not listen: the caller can only stop to wait for it. They are kept
// for the next evaluation, with stacks that have grown to what Rego needs.
type runner struct {
	idle     chan *worker
	deadline time.Duration
	growth   uint64
}

type worker struct {
	in  chan task
	out chan result // buffered: an abandoned worker does not block
}

type task struct {
	ctx    context.Context
	cancel topdown.Cancel
	do     func(ctx context.Context, cancel topdown.Cancel) ([]any, error)
}

type result struct {
	out []any
	err error
}

// idleWorkers is how many goroutines wait for work at most.
const idleWorkers = 16

func newRunner() *runner {
	return &runner{idle: make(chan *worker, idleWorkers), deadline: Deadline, growth: maxGrowth}
}

func (w *worker) loop() {
	for t := range w.in {
		w.out <- t.outcome()
	}
}

// outcome is that of the task. A panic is the library's: nobody's claims, and no
// administrator's text, may end the broker.
func (t task) outcome() (r result) {
	defer func() {
		if p := recover(); p != nil {
			r = result{err: fmt.Errorf("%w: %v", errPanic, p)}
		}
	}()
	r.out, r.err = t.do(t.ctx, t.cancel)
	return r
}

// take returns an idle worker, or a new one. It ends when its input is closed:
// see put and run.
func (r *runner) take() *worker {
	select {
	case w := <-r.idle:
		return w
	default:
	}
	w := &worker{in: make(chan task), out: make(chan result, 1)}
	go w.loop()
	return w
}

func (r *runner) put(w *worker) {
	select {
	case r.idle <- w:
	default:
		close(w.in)
	}
}

// close ends the idle goroutines.
func (r *runner) close() {
	for {
		select {
		case w := <-r.idle:
			close(w.in)
		default:
			return
		}
	}
}

// run evaluates and returns at the latest at the deadline plus the grace. The
// error errStuck says that the evaluation still goes on.
func (r *runner) run(ctx context.Context, do func(context.Context, topdown.Cancel) ([]any, error)) ([]any, error) {
	w, cancel := r.take(), topdown.NewCancel()
	w.in <- task{ctx, cancel, do}
	timer := time.NewTimer(slow)
	defer timer.Stop()
	select {
	case res := <-w.out:
		r.put(w)
		return res.out, res.err
	case <-ctx.Done():
	case <-timer.C:
	}
	res, why := r.watch(ctx, w, cancel)
	if res == nil {
		close(w.in) // the worker ends with its task, if ever
		return nil, fmt.Errorf("%w: %w", why, errStuck)
	}
	r.put(w)
	if why != nil {
		return nil, why
	}
	return res.out, res.err
}

// watch waits for a slow evaluation and ends it where it must end. No result
// means that it did not listen.
func (r *runner) watch(ctx context.Context, w *worker, cancel topdown.Cancel) (*result, error) {
	base := heap()
	end := time.Now().Add(r.deadline - slow)
	tick := time.NewTicker(slow / 2)
	defer tick.Stop()
	for {
		var why error
		select {
		case res := <-w.out:
			return &res, nil
		case <-ctx.Done():
			why = ctx.Err()
		case now := <-tick.C:
			switch {
			case now.After(end):
				why = errDeadline
			case heap() > base+r.growth:
				why = errGrowth
			}
		}
		if why == nil {
			continue
		}
		cancel.Cancel()
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case res := <-w.out:
			return &res, why
		case <-timer.C:
			return nil, why
		}
	}
}

// heap returns the bytes of the process's live and not yet swept objects.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
