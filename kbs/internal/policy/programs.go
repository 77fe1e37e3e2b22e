package policy

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// maxWeight bounds the memory that compiled policies take, as weight estimates
// it. It holds a thousand small ones.
const maxWeight = 96 << 20

// weight estimates how many bytes a compiled text takes, after measurements.
func weight(text string) int { return 64<<10 + 40*len(text) }

// programs keeps the compiled policies that were used last, by kind and digest
// of the text: tenants that use the same text share its program. Each is
// compiled once, however many ask for it at the same time.
type programs struct {
	mu    sync.Mutex
	bySum map[string]*list.Element
	order *list.List // of *slot, the last used first
	sum   int        // of the weights
	most  int
}

type slot struct {
	key     string
	weight  int
	once    sync.Once
	program *program
	err     error
}

func newPrograms() *programs {
	return &programs{bySum: map[string]*list.Element{}, order: list.New(), most: maxWeight}
}

// get returns the program of a text, reading and compiling it if need be. An
// error is not kept: the store may have been away.
func (p *programs) get(kind Kind, sum string, read func() (string, error)) (*program, error) {
	s := p.slot(string(kind) + "/" + sum)
	s.once.Do(func() {
		text, err := read()
		if err == nil {
			s.program, err = compile(context.Background(), kind, text)
		}
		s.err = err
		p.settle(s, weight(text))
	})
	return s.program, s.err
}

func (p *programs) slot(key string) *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.bySum[key]; ok {
		p.order.MoveToFront(e)
		return e.Value.(*slot)
	}
	s := &slot{key: key}
	p.bySum[key] = p.order.PushFront(s)
	return s
}

// settle enters the weight of a slot and makes room for it, or forgets it if
// it failed.
func (p *programs) settle(s *slot, weight int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.bySum[s.key]
	if !ok || e.Value != s {
		return
	}
	if s.err != nil {
		p.drop(e)
		return
	}
	s.weight = weight
	p.sum += weight
	for p.sum > p.most && p.order.Len() > 1 {
		p.drop(p.order.Back())
	}
}

func (p *programs) drop(e *list.Element) {
	s := p.order.Remove(e).(*slot)
	delete(p.bySum, s.key)
	p.sum -= s.weight
}

// judge is a program in its office: as one version of one policy.
type judge struct {
	*program
	ref string // as of Ref
}

// judge returns one version of a policy, compiled.
func (e *Engine) judge(ctx context.Context, kind Kind, id string, n int64, sum string) (judge, error) {
	ref := Ref(kind, id, n)
	p, err := e.programs.get(kind, sum, func() (string, error) {
		var v version
		// Others wait for this, so it does not end with one caller.
		err := e.docs.st.View(context.WithoutCancel(ctx), func(tx store.Tx) (err error) {
			v, err = readVersion(tx, kind, id, n)
			return err
		})
		return v.Rego, err
	})
	if err != nil {
		return judge{}, fmt.Errorf("%w: %s: %w", ErrEvaluation, ref, err)
	}
	return judge{p, ref}, nil
}
