package policylang

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// An evaluation that does not listen is left behind; its caller has an answer.
func TestRunnerLeavesTheDeafBehind(t *testing.T) {
	r := NewRunner(16, 1<<30)
	defer r.Close()
	r.Deadline = 50 * time.Millisecond
	end, ended := make(chan struct{}), make(chan struct{})
	_, err := Run(t.Context(), r, func(context.Context, topdown.Cancel) ([]any, error) {
		defer close(ended)
		<-end
		return nil, nil
	})
	if !errors.Is(err, ErrStuck) || !errors.Is(err, ErrDeadline) {
		t.Fatal(err)
	}
	if len(r.idle) != 0 {
		t.Error("a busy worker is called idle")
	}
	close(end)
	<-ended
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Run(ctx, r, func(_ context.Context, c topdown.Cancel) ([]any, error) {
		for !c.Cancelled() {
			runtime.Gosched()
		}
		return nil, errors.New("cancelled")
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrStuck) {
		t.Errorf("a caller that went away: %v", err)
	}
}

// A panic within the library is an evaluation that failed, and the goroutine that
// met it serves the next one.
func TestPanicOfTheLibrary(t *testing.T) {
	r := NewRunner(16, 1<<30)
	defer r.Close()
	for range 3 {
		_, err := Run(t.Context(), r, func(context.Context, topdown.Cancel) ([]any, error) { panic("a defect") })
		if !errors.Is(err, ErrPanic) {
			t.Fatalf("%v", err)
		}
		out, err := Run(t.Context(), r, func(context.Context, topdown.Cancel) ([]any, error) { return []any{7}, nil })
		if err != nil || len(out) != 1 {
			t.Fatalf("afterwards: %v, %v", out, err)
		}
	}
}
