package policy

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// index is an immutable picture of which versions are in force and in the
// shadow. A request reads one small record to learn that its picture is still
// true; only after a change are the heads of all policies read again. So a
// thousand policies cost a request what one does, and a change made through
// any replica bites everywhere at once.
type index struct {
	generation store.Version
	parts      map[string]parts // by kind/id
}

// parts are the versions that are evaluated.
type parts struct{ enforce, shadow int64 }

func indexName(kind Kind, id string) string { return string(kind) + "/" + id }

// current returns an index that is true now.
func (e *Engine) current(ctx context.Context) (*index, error) {
	known := e.index.Load()
	var fresh *index
	err := e.docs.st.View(ctx, func(tx store.Tx) error {
		fresh = nil
		r, err := tx.Get(keyGeneration)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if known != nil && known.generation == r.Version {
			return nil
		}
		fresh, err = readIndex(tx, r.Version)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	if fresh == nil {
		return known, nil
	}
	e.index.Store(fresh)
	return fresh, nil
}

func readIndex(tx store.Tx, generation store.Version) (*index, error) {
	x := &index{generation: generation, parts: map[string]parts{}}
	err := each(tx, keyHead, func(r store.Record) error {
		kind, id, err := splitHead(r.Key)
		if err != nil {
			return err
		}
		h, err := decodeHead(r)
		if err == nil && (h.Enforce != 0 || h.Shadow != 0) {
			x.parts[indexName(kind, id)] = parts{h.Enforce, h.Shadow}
		}
		return err
	})
	return x, err
}

// resource returns the name of the policy that decides about a path of a
// plugin, and of the one whose shadow is asked: the most specific that has a
// version in that part. Empty names mean none.
func (x *index) resource(plugin string, path []string) (enforce, shadow string) {
	for _, id := range candidates(plugin, path) {
		p := x.parts[indexName(Resource, id)]
		if shadow == "" && p.shadow != 0 {
			shadow = id
		}
		if p.enforce != 0 {
			return id, shadow
		}
	}
	return "", shadow
}

// maxPrograms bounds how many compiled versions are kept. One takes some
// hundred kilobytes.
const maxPrograms = 64

// programs keeps the compiled versions that were used last. Each is compiled
// once, however many ask for it at the same time.
type programs struct {
	mu    sync.Mutex
	byRef map[string]*list.Element
	order *list.List // of *slot, the last used first
}

type slot struct {
	ref     string
	once    sync.Once
	program *program
	err     error
}

func newPrograms() *programs { return &programs{byRef: map[string]*list.Element{}, order: list.New()} }

// get returns the program of a reference, compiling it if need be. An error
// is not kept: the store may have been away.
func (p *programs) get(ref string, compile func() (*program, error)) (*program, error) {
	s := p.slot(ref)
	s.once.Do(func() { s.program, s.err = compile() })
	if s.err != nil {
		p.forget(ref, s)
	}
	return s.program, s.err
}

func (p *programs) slot(ref string) *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.byRef[ref]; ok {
		p.order.MoveToFront(e)
		return e.Value.(*slot)
	}
	s := &slot{ref: ref}
	p.byRef[ref] = p.order.PushFront(s)
	if p.order.Len() > maxPrograms {
		oldest := p.order.Back()
		p.order.Remove(oldest)
		delete(p.byRef, oldest.Value.(*slot).ref)
	}
	return s
}

func (p *programs) forget(ref string, s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.byRef[ref]; ok && e.Value == s {
		p.order.Remove(e)
		delete(p.byRef, ref)
	}
}

// program returns one version of a policy, compiled.
func (e *Engine) program(ctx context.Context, kind Kind, id string, n int64) (*program, error) {
	ref := Ref(kind, id, n)
	return e.programs.get(ref, func() (*program, error) {
		// Others wait for this compilation, so it does not end with one caller.
		ctx := context.WithoutCancel(ctx)
		var v version
		err := e.docs.st.View(ctx, func(tx store.Tx) (err error) {
			v, err = readVersion(tx, kind, id, n)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", ref, err)
		}
		p, err := compile(ctx, kind, id, n, v.Rego)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrEvaluation, ref, err)
		}
		return p, nil
	})
}
