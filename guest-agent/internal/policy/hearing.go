package policy

import (
	"context"
	"sync/atomic"
)

// A request takes its time: an image is pulled, a disk looked for. If the policy is
// replaced meanwhile, what the old one allowed must not be carried out with the
// volumes and keys of the new one, for that is what neither allowed.

type allowanceKey struct{}

// allowance is by what a request was allowed; nil before it was.
type allowance struct{ by atomic.Pointer[world] }

// Hearing returns a context for one request, for Judge and for what is asked of the
// engine while the request is carried out.
func Hearing(ctx context.Context) context.Context {
	return context.WithValue(ctx, allowanceKey{}, &allowance{})
}

func remember(ctx context.Context, w *world) {
	if a, ok := ctx.Value(allowanceKey{}).(*allowance); ok {
		a.by.Store(w)
	}
}

// allowedBy is the world that has allowed the request of a context, else the one
// that is in force.
func (e *Engine) allowedBy(ctx context.Context) *world {
	if a, ok := ctx.Value(allowanceKey{}).(*allowance); ok {
		if w := a.by.Load(); w != nil {
			return w
		}
	}
	return e.world.Load()
}
