package pull

import (
	"context"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/image/store"
)

// flights lets one goroutine at a time work on a layer. Those who wait do not
// share the outcome of the first but try again by themselves: it may have
// failed because its caller gave up, or because its image described the layer
// wrongly, and neither is their fault.
type flights struct {
	mu   sync.Mutex
	busy map[store.Key]chan struct{}
}

// do runs fn alone for the key. fn first looks into the store, where a waiting
// caller finds what the first one made.
func (f *flights) do(ctx context.Context, k store.Key, fn func() (*store.Layer, error)) (*store.Layer, error) {
	for {
		f.mu.Lock()
		if f.busy == nil {
			f.busy = map[store.Key]chan struct{}{}
		}
		wait, taken := f.busy[k]
		if !taken {
			break
		}
		f.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	done := make(chan struct{})
	f.busy[k] = done
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.busy, k)
		f.mu.Unlock()
		close(done)
	}()
	return fn()
}
