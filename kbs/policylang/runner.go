package policylang

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
// single endless step is left behind after the grace.
const (
	// Deadline limits the time.
	Deadline = 2 * time.Second
	// grace is how long an evaluation may take to notice that it has to end.
	grace = 500 * time.Millisecond
	// slow is how long an evaluation runs unwatched. Nearly all are done by
	// then.
	slow = 10 * time.Millisecond
)

// Reasons for the end of an evaluation.
var (
	ErrDeadline = errors.New("it took too long")
	ErrGrowth   = errors.New("it used too much memory")
	ErrPanic    = errors.New("the evaluation panicked")
	// ErrStuck says that the evaluation still goes on, for it does not listen. Its
	// policy must not be evaluated again.
	ErrStuck = errors.New("it did not end when it was told to and is not evaluated again")
)

// A Runner evaluates on goroutines of its own, because Go cannot end a goroutine
// that does not listen: the caller can only stop to wait for it. They are kept
// for the next evaluation, with stacks that have grown to what Rego needs.
type Runner struct {
	// Deadline limits the time of one evaluation.
	Deadline time.Duration
	// Growth limits by how many bytes the heap of the process may grow while a
	// slow evaluation runs. It is a fuse, not an account: others allocate as well.
	Growth uint64

	idle chan *worker
}

type worker struct {
	in  chan task
	out chan result // buffered: an abandoned worker does not block
}

type task struct {
	ctx    context.Context
	cancel topdown.Cancel
	do     func(ctx context.Context, cancel topdown.Cancel) (any, error)
}

type result struct {
	out any
	err error
}

// NewRunner keeps so many goroutines at most that wait for work.
func NewRunner(idle int, growth uint64) *Runner {
	return &Runner{Deadline: Deadline, Growth: growth, idle: make(chan *worker, idle)}
}

func (w *worker) loop() {
	for t := range w.in {
		w.out <- t.outcome()
	}
}

// outcome is that of the task. A panic is the library's: nobody's request, and no
// author's text, may end the process.
func (t task) outcome() (r result) {
	defer func() {
		if p := recover(); p != nil {
			r = result{err: fmt.Errorf("%w: %v", ErrPanic, p)}
		}
	}()
	r.out, r.err = t.do(t.ctx, t.cancel)
	return r
}

// take returns an idle worker, or a new one. It ends when its input is closed:
// see put and run.
func (r *Runner) take() *worker {
	select {
	case w := <-r.idle:
		return w
	default:
	}
	w := &worker{in: make(chan task), out: make(chan result, 1)}
	go w.loop()
	return w
}

func (r *Runner) put(w *worker) {
	select {
	case r.idle <- w:
	default:
		close(w.in)
	}
}

// Close ends the idle goroutines.
func (r *Runner) Close() {
	for {
		select {
		case w := <-r.idle:
			close(w.in)
		default:
			return
		}
	}
}

// Run evaluates and returns at the latest at the deadline plus the grace.
func Run[T any](ctx context.Context, r *Runner, do func(context.Context, topdown.Cancel) (T, error)) (T, error) {
	out, err := r.run(ctx, func(ctx context.Context, cancel topdown.Cancel) (any, error) { return do(ctx, cancel) })
	value, _ := out.(T) // none, after some errors
	return value, err
}

func (r *Runner) run(ctx context.Context, do func(context.Context, topdown.Cancel) (any, error)) (any, error) {
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
		return nil, fmt.Errorf("%w: %w", why, ErrStuck)
	}
	r.put(w)
	if why != nil {
		return nil, why
	}
	return res.out, res.err
}

// watch waits for a slow evaluation and ends it where it must end. No result
// means that it did not listen.
func (r *Runner) watch(ctx context.Context, w *worker, cancel topdown.Cancel) (*result, error) {
	base := heap()
	end := time.Now().Add(r.Deadline - slow)
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
				why = ErrDeadline
			case heap() > base+r.Growth:
				why = ErrGrowth
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
