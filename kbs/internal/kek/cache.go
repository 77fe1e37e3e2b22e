package kek

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Cached remembers what a remote key opened, for a while and up to a number of
// keys, so that a release does not cost a round trip each. Whoever could read
// the memory of the broker finds the data keys of what was released lately; a
// holder that is asked for every release would hand them to him as well.
//
// Of many who ask for the same key at once, one asks the holder.
type Cached struct {
	Wrapper
	ttl  time.Duration
	size int
	now  func() time.Time

	flights singleflight.Group

	mu    sync.Mutex
	byKey map[[sha256.Size]byte]*list.Element
	order *list.List // the oldest first; of one ttl, so the first to expire
}

type opened struct {
	of      [sha256.Size]byte
	key     secret.Bytes
	expires time.Time
}

// NewCached returns w with a memory of size keys for ttl.
func NewCached(w Wrapper, size int, ttl time.Duration, now func() time.Time) *Cached {
	return &Cached{
		Wrapper: w, size: size, ttl: ttl, now: now,
		byKey: map[[sha256.Size]byte]*list.Element{}, order: list.New(),
	}
}

// Unwrap implements Wrapper. A failure is not remembered.
func (c *Cached) Unwrap(ctx context.Context, wrapped, bound []byte) (secret.Bytes, error) {
	of := place(wrapped, bound)
	if key, ok := c.recall(of); ok {
		return key, nil
	}
	done := c.flights.DoChan(string(of[:]), func() (any, error) {
		// Others wait for the answer too, so it must not depend on one caller.
		key, err := c.Wrapper.Unwrap(context.WithoutCancel(ctx), wrapped, bound)
		if err == nil {
			c.remember(of, key)
		}
		return key, err
	})
	select {
	case <-ctx.Done():
		return secret.Bytes{}, ctx.Err()
	case r := <-done:
		if r.Err != nil {
			return secret.Bytes{}, r.Err
		}
		return secret.Copy(r.Val.(secret.Bytes).Reveal()), nil
	}
}

func place(wrapped, bound []byte) [sha256.Size]byte {
	h := sha256.New()
	_ = binary.Write(h, binary.BigEndian, uint64(len(wrapped)))
	h.Write(wrapped)
	h.Write(bound)
	return [sha256.Size]byte(h.Sum(nil))
}

func (c *Cached) recall(of [sha256.Size]byte) (secret.Bytes, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	e, ok := c.byKey[of]
	if !ok {
		return secret.Bytes{}, false
	}
	return secret.Copy(e.Value.(*opened).key.Reveal()), true
}

func (c *Cached) remember(of [sha256.Size]byte, key secret.Bytes) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	if _, ok := c.byKey[of]; ok {
		return
	}
	for c.order.Len() >= c.size {
		c.drop(c.order.Front())
	}
	c.byKey[of] = c.order.PushBack(&opened{of, secret.Copy(key.Reveal()), c.now().Add(c.ttl)})
}

// expire wipes what is too old, also when nobody asks for it again but for
// something else.
func (c *Cached) expire() {
	for e := c.order.Front(); e != nil && !c.now().Before(e.Value.(*opened).expires); e = c.order.Front() {
		c.drop(e)
	}
}

func (c *Cached) drop(e *list.Element) {
	o := c.order.Remove(e).(*opened)
	delete(c.byKey, o.of)
	o.key.Destroy()
}

// Caching returns h with every key [Cached]; a ttl of zero returns h itself.
func Caching(h Holder, size int, ttl time.Duration, now func() time.Time) Holder {
	if ttl == 0 {
		return h
	}
	return caching{h, func(w Wrapper, err error) (Wrapper, error) {
		if err != nil {
			return nil, err
		}
		return NewCached(w, size, ttl, now), nil
	}}
}

type caching struct {
	Holder
	remember func(Wrapper, error) (Wrapper, error)
}

func (c caching) First(ctx context.Context) (Wrapper, error) { return c.remember(c.Holder.First(ctx)) }

func (c caching) Open(ctx context.Context, id string) (Wrapper, error) {
	return c.remember(c.Holder.Open(ctx, id))
}

func (c caching) Make(ctx context.Context) (Wrapper, error) { return c.remember(c.Holder.Make(ctx)) }
