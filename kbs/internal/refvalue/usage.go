package refvalue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// maxUsage bounds the names whose use is remembered between two flushes.
const maxUsage = 16 << 10

// usage remembers when names were last asked for, until it is written down:
// a query must not cost a write.
type usage struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (u *usage) note(name string, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = map[string]time.Time{}
	}
	if _, there := u.last[name]; there || len(u.last) < maxUsage {
		u.last[name] = now
	}
}

func (u *usage) take() map[string]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := u.last
	u.last = nil
	return out
}

// Flush writes down which names were asked for since it was last called. What
// a crash loses is a minute of it.
func (r *Registry) Flush(ctx context.Context) error {
	taken := r.usage.take()
	if len(taken) == 0 {
		return nil
	}
	return r.st.Update(ctx, func(tx store.Tx) error {
		for name, at := range taken {
			// Who was last asked for long ago is of no interest any more.
			if _, err := tx.PutUntil(prefixUsed+name, []byte(at.UTC().Format(time.RFC3339)), store.Any, at.AddDate(2, 0, 0)); err != nil {
				return err
			}
		}
		return nil
	})
}

// lastQueried is when a policy last asked for the name; zero if it is not
// known.
func (r *Registry) lastQueried(ctx context.Context, name string) (at time.Time, err error) {
	err = r.st.View(ctx, func(tx store.Tx) error {
		rec, err := tx.Get(prefixUsed + name)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		at, err = time.Parse(time.RFC3339, string(rec.Value))
		return err
	})
	return at, err
}
