package limit

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// Width is how much a gate lets through.
type Width struct {
	Running int           // at once
	Waiting int           // in the queue
	Wait    time.Duration // at most, for one's turn
}

// Gate lets costly work through, a few at a time. Those who wait take turns by
// address: an address with a hundred waiting delays another by one, not by a
// hundred. When the queue is full, whoever waits most makes room.
//
// Work that is not sent through the gate never waits for it, and competes for
// the CPUs with at most Width.Running of what is.
type Gate struct {
	shed func(reason string)

	mu      sync.Mutex
	width   Width
	running int
	waiting int
	lanes   []*lane // with somebody in them, in the order of their turns
}

// lane has the waiting of one address, the first in front.
type lane struct {
	addr  netip.Addr
	queue []*waiter
}

// waiter is told once: nil is its turn.
type waiter struct{ turn chan error }

// NewGate returns a gate. It tells shed of everything that it refuses.
func NewGate(w Width, shed func(reason string)) *Gate { return &Gate{shed: shed, width: w} }

// Set changes the width. Who waits goes on waiting.
func (g *Gate) Set(w Width) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.width = w
	g.next()
}

// Load returns how many run and how many wait.
func (g *Gate) Load() (running, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running, g.waiting
}

// Enter waits for a turn. The caller must call leave when the work is done. It
// returns a fault with code unavailable if the queue is full or the wait too
// long, and the context's error if that ended first.
func (g *Gate) Enter(ctx context.Context) (leave func(), err error) {
	g.mu.Lock()
	if g.running < g.width.Running && g.waiting == 0 {
		g.running++
		g.mu.Unlock()
		return g.leave, nil
	}
	wait := g.width.Wait
	w, err := g.join(Client(ctx))
	g.mu.Unlock()
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err := <-w.turn:
		if err != nil {
			return nil, err
		}
		return g.leave, nil
	case <-timer.C:
		return g.giveUp(w, func() error { return g.refused("queue_timeout") })
	case <-ctx.Done():
		return g.giveUp(w, func() error { return fault.New(fault.Unavailable, context.Cause(ctx)) })
	}
}

func (g *Gate) refused(reason string) error {
	g.shed(reason)
	return fault.New(fault.Unavailable, &Error{reason, time.Second})
}

// join puts a waiter into the lane of its address.
func (g *Gate) join(a netip.Addr) (*waiter, error) {
	i := slices.IndexFunc(g.lanes, func(l *lane) bool { return l.addr == a })
	have := 0
	if i >= 0 {
		have = len(g.lanes[i].queue)
	}
	if g.waiting >= g.width.Waiting && !g.makeRoom(have) {
		return nil, g.refused("queue_full")
	}
	// Making room may have emptied lanes: look again.
	if i = slices.IndexFunc(g.lanes, func(l *lane) bool { return l.addr == a }); i < 0 {
		i = len(g.lanes)
		g.lanes = append(g.lanes, &lane{addr: a})
	}
	w := &waiter{turn: make(chan error, 1)}
	g.lanes[i].queue = append(g.lanes[i].queue, w)
	g.waiting++
	return w, nil
}

// makeRoom turns away the last of the longest lane, if that is longer than
// that of who wants to come in would be.
func (g *Gate) makeRoom(have int) bool {
	longest := -1
	for i, l := range g.lanes {
		if len(l.queue) > have+1 && (longest < 0 || len(l.queue) > len(g.lanes[longest].queue)) {
			longest = i
		}
	}
	if longest < 0 {
		return false
	}
	l := g.lanes[longest]
	last := l.queue[len(l.queue)-1]
	g.remove(longest, len(l.queue)-1)
	last.turn <- g.refused("queue_full")
	return true
}

func (g *Gate) remove(lane, at int) {
	l := g.lanes[lane]
	l.queue = slices.Delete(l.queue, at, at+1)
	g.waiting--
	if len(l.queue) == 0 {
		g.lanes = slices.Delete(g.lanes, lane, lane+1)
	}
}

// giveUp takes a waiter out. If its turn came in the same moment, it leaves
// again.
func (g *Gate) giveUp(w *waiter, why func() error) (func(), error) {
	g.mu.Lock()
	for i, l := range g.lanes {
		if at := slices.Index(l.queue, w); at >= 0 {
			g.remove(i, at)
			g.mu.Unlock()
			return nil, why()
		}
	}
	g.mu.Unlock()
	if err := <-w.turn; err != nil {
		return nil, err
	}
	g.leave()
	return nil, why()
}

func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.next()
}

// next gives turns, a lane after the other.
func (g *Gate) next() {
	for g.running < g.width.Running && len(g.lanes) > 0 {
		l := g.lanes[0]
		w := l.queue[0]
		g.remove(0, 0)
		if len(l.queue) > 0 { // to the end of the row
			g.lanes = append(g.lanes[1:], l)
		}
		g.running++
		w.turn <- nil
	}
}
