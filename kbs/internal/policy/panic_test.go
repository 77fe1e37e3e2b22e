package policy

import (
	"context"
	"errors"
	"testing"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// A panic within the library is an evaluation that failed, and the goroutine that
// met it serves the next one.
func TestPanicOfTheLibrary(t *testing.T) {
	r := newRunner()
	defer r.close()
	for range 3 {
		_, err := r.run(t.Context(), func(context.Context, topdown.Cancel) ([]any, error) { panic("a defect") })
		if !errors.Is(err, errPanic) {
			t.Fatalf("%v", err)
		}
		out, err := r.run(t.Context(), func(context.Context, topdown.Cancel) ([]any, error) { return []any{7}, nil })
		if err != nil || len(out) != 1 {
			t.Fatalf("afterwards: %v, %v", out, err)
		}
	}
}
