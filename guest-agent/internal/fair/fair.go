// Package fair shares a number of places among callers who do not know each
// other, such that none can keep the others out. Connections to the agent's side
// doors are such places: each of a pod's containers can make as many as it likes.
//
// Who holds n places is given another one while more than n are free. So one
// caller has half of them at most, two have a third each, and whoever has none
// finds one as long as there are fewer callers than places. No share has to be
// set, and none is kept for callers that never come.
//
// While few places are taken nobody is asked who they are: for a connection over
// loopback, finding that out costs a walk through all processes.
package fair

import (
	"sync"
)

// crowded is the part of the places that anybody may take: one in eight.
const crowded = 8

// Places are shared. They must be made by [New].
type Places struct {
	total int

	taking sync.Mutex // held while it is found out who asks: one after the other

	mu   sync.Mutex
	held map[*place]struct{}
}

type place struct{ who func() string }

// New returns that many places.
func New(total int) *Places {
	return &Places{total: total, held: map[*place]struct{}{}}
}

// Take takes a place until leave is called, which may be done at any time and
// again. who tells one caller from another; it is called once at most, maybe much
// later, and not after leave has returned but for a call that is under way.
func (p *Places) Take(who func() string) (leave func(), ok bool) {
	p.taking.Lock()
	defer p.taking.Unlock()
	one := &place{who: sync.OnceValue(who)}
	if !p.mayTake(one) {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[one] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.held, one)
	}, true
}

func (p *Places) mayTake(one *place) bool {
	others := p.list()
	free := p.total - len(others)
	switch {
	case free <= 0:
		return false
	case len(others) < p.total/crowded:
		return true
	}
	me, mine := one.who(), 0
	for _, o := range others {
		if o.who() == me {
			mine++
		}
	}
	return mine < free
}

// list is what is held, so that no lock is held while callers are found.
func (p *Places) list() []*place {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*place, 0, len(p.held))
	for one := range p.held {
		all = append(all, one)
	}
	return all
}

// few reports whether nobody has to be told from others.
func (p *Places) few() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held) < p.total/crowded
}
