package tenant

import (
	"context"
	"sync"
)

// Pool keeps what serves each tenant, built when it is first wanted and again
// when the tenant's record has changed. It holds at most max of them beside
// that of Default; the one that was unused the longest goes first. What is
// dropped may still be in use: it must need no closing.
type Pool[T any] struct {
	build func(ctx context.Context, rec Record) (T, error)
	max   int

	mu    sync.Mutex
	clock uint64 // counts uses
	held  map[string]*held[T]
}

type held[T any] struct {
	rec  Record
	used uint64
	get  func() (T, error)
}

// NewPool returns an empty pool.
func NewPool[T any](most int, build func(ctx context.Context, rec Record) (T, error)) *Pool[T] {
	return &Pool[T]{build: build, max: most, held: map[string]*held[T]{}}
}

// Get returns what serves the tenant of this record.
func (p *Pool[T]) Get(ctx context.Context, rec Record) (T, error) {
	h := p.hold(ctx, rec)
	v, err := h.get()
	if err != nil {
		p.drop(h) // the next one tries again
	}
	return v, err
}

func (p *Pool[T]) hold(ctx context.Context, rec Record) *held[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock++
	if h, ok := p.held[rec.Name]; ok && h.rec.Version == rec.Version {
		h.used = p.clock
		return h
	}
	// Who builds does it for everybody: a caller that goes away does not stop it.
	ctx = context.WithoutCancel(ctx)
	h := &held[T]{rec: rec, used: p.clock, get: sync.OnceValues(func() (T, error) { return p.build(ctx, rec) })}
	p.held[rec.Name] = h
	p.evict()
	return h
}

// evict drops the one that was unused the longest, if there are too many.
func (p *Pool[T]) evict() {
	var oldest *held[T]
	others := 0
	for name, h := range p.held {
		if name == Default {
			continue
		}
		others++
		if oldest == nil || h.used < oldest.used {
			oldest = h
		}
	}
	if others > p.max {
		delete(p.held, oldest.rec.Name)
	}
}

func (p *Pool[T]) drop(h *held[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[h.rec.Name] == h {
		delete(p.held, h.rec.Name)
	}
}

// Held returns all that the pool holds and that could be built.
func (p *Pool[T]) Held() []T {
	p.mu.Lock()
	all := make([]*held[T], 0, len(p.held))
	for _, h := range p.held {
		all = append(all, h)
	}
	p.mu.Unlock()
	var out []T
	for _, h := range all {
		if v, err := h.get(); err == nil {
			out = append(out, v)
		}
	}
	return out
}
