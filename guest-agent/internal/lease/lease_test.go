package lease

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

type counts struct{ asked, renewed, forgotten, dropped, killed int }

// pod is a pod of one container whose broker answers as told.
type pod struct {
	*Keeper
	mu sync.Mutex // over what follows

	answer, renew error
	hang, bug     bool
	n             counts
	failStop      bool
	end           context.CancelFunc
}

func newPod(t *testing.T, cfg Config) *pod {
	t.Helper()
	p := &pod{}
	if cfg.Interval == 0 {
		cfg.Interval = 5 * time.Minute
	}
	cfg.Renew = func(context.Context) error { defer p.lock()(); p.n.renewed++; return p.renew }
	cfg.Forget = func() { defer p.lock()(); p.n.forgotten++ }
	cfg.Stop = func(_ context.Context, id string) error {
		defer p.lock()()
		if p.failStop {
			return errors.New("busy")
		}
		if id == "app" {
			p.n.killed++
		}
		return nil
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	p.Keeper = New(cfg)
	ctx, end := context.WithCancel(context.Background())
	p.end = end
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	t.Cleanup(func() { end(); <-done })
	return p
}

func (p *pod) lock() func() { p.mu.Lock(); return p.mu.Unlock }

func (p *pod) set(f func()) { defer p.lock()(); f() }

func (p *pod) lease() Lease {
	return Lease{Holder: "app", What: "a secret", Drop: func() error { defer p.lock()(); p.n.dropped++; return nil }, Ask: func(ctx context.Context) error {
		unlock := p.lock()
		p.n.asked++
		hang, bug, answer := p.hang, p.bug, p.answer
		unlock()
		if bug {
			panic("a bug")
		}
		if hang {
			<-ctx.Done()
			return fault.New(fault.Unavailable, ctx.Err())
		}
		return answer
	}}
}

func (p *pod) seen() counts { defer p.lock()(); return p.n }

// rounds waits until n more of them are over.
func (p *pod) rounds(n int) {
	for want := p.seen().asked + n; p.seen().asked < want; {
		time.Sleep(time.Second) //nolint:forbidigo // in a bubble
	}
	synctest.Wait()
}

// A lease is renewed by asking again, at times that nobody else has; a pod that
// holds nothing asks nobody.
func TestRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPod(t, Config{OnEnd: Stop})
		time.Sleep(time.Hour) //nolint:forbidigo // in a bubble
		synctest.Wait()
		if p.seen().renewed != 0 {
			t.Error("a pod that holds nothing attests")
		}
		release := p.Hold(p.lease())
		start := time.Now()
		p.rounds(10)
		if took := time.Since(start); took < 40*time.Minute || took > 56*time.Minute {
			t.Errorf("ten rounds of five minutes took %v", took)
		}
		if p.seen().renewed != 10 || p.seen().dropped != 0 || p.seen().killed != 0 {
			t.Errorf("%+v", p.seen())
		}
		release()
		release()
		before := p.seen().asked
		time.Sleep(time.Hour) //nolint:forbidigo // in a bubble
		synctest.Wait()
		if p.seen().asked != before {
			t.Error("what was released is still asked for")
		}
	})
}

// What is the whole pod's is cut where a container would be killed, and until
// that is done.
func TestCut(t *testing.T) {
	for on, want := range map[Action]int{Keep: 0, Drop: 0, Stop: 2} {
		synctest.Test(t, func(t *testing.T) {
			p := newPod(t, Config{OnEnd: on})
			cut := 0
			l := p.lease()
			l.Holder, l.Cut = "", func() error {
				defer p.lock()()
				if cut++; cut == 1 {
					return errors.New("busy")
				}
				return nil
			}
			p.Hold(l)
			p.set(func() { p.answer = fault.Newf(fault.GuestRevoked, "no") })
			time.Sleep(time.Hour) //nolint:forbidigo // in a bubble
			synctest.Wait()
			if cut != want || p.seen().killed != 0 {
				t.Errorf("%s: cut off %d times, killed %d containers", on, cut, p.seen().killed)
			}
		})
	}
}

func TestEnds(t *testing.T) {
	refused := fault.Newf(fault.GuestRevoked, "no")
	for name, c := range map[string]struct {
		on                         Action
		answer, renew              error
		forgotten, dropped, killed int
	}{
		"keep":                         {on: Keep, answer: refused},
		"drop":                         {on: Drop, answer: refused, forgotten: 1, dropped: 1},
		"stop":                         {on: Stop, answer: refused, forgotten: 1, dropped: 1, killed: 1},
		"by policy":                    {on: Drop, answer: fault.Newf(fault.PolicyDenied, "no"), forgotten: 1, dropped: 1},
		"deleted":                      {on: Drop, answer: fault.Newf(fault.NotFound, "no"), forgotten: 1, dropped: 1},
		"the guest no longer verifies": {on: Stop, renew: fault.Newf(fault.EvidenceInvalid, "no"), forgotten: 1, dropped: 1, killed: 1},
		"a broker that is down":        {on: Stop, answer: fault.Newf(fault.Unavailable, "no"), renew: fault.Newf(fault.Unavailable, "no")},
		"a broker that is broken":      {on: Stop, answer: fault.Newf(fault.Internal, "no")},
		"a broker that is busy":        {on: Stop, answer: fault.Newf(fault.TooMany, "no")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPod(t, Config{OnEnd: c.on})
				p.Hold(p.lease())
				p.set(func() { p.answer, p.renew = c.answer, c.renew })
				time.Sleep(time.Hour) //nolint:forbidigo // in a bubble
				synctest.Wait()
				if p.seen().forgotten != c.forgotten || p.seen().dropped != c.dropped || p.seen().killed != c.killed || p.seen().renewed < 9 {
					t.Errorf("forgotten %d, dropped %d, killed %d after %d rounds", p.seen().forgotten, p.seen().dropped, p.seen().killed, p.seen().renewed)
				}
			})
		})
	}
}

// What was taken back comes back, and can end again.
func TestComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPod(t, Config{OnEnd: Drop})
		p.Hold(p.lease())
		for n := range 3 {
			p.set(func() { p.answer = fault.Newf(fault.PolicyDenied, "no") })
			p.rounds(2)
			p.set(func() { p.answer = nil })
			p.rounds(2)
			if p.seen().dropped != n+1 {
				t.Errorf("dropped %d times", p.seen().dropped)
			}
		}
	})
}

// The owner may bound how long a broker may be silent, and then only.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPod(t, Config{OnEnd: Drop, Grace: 30 * time.Minute})
		p.Hold(p.lease())
		p.set(func() { p.hang = true })
		time.Sleep(25 * time.Minute) //nolint:forbidigo // in a bubble
		synctest.Wait()
		if p.seen().dropped != 0 {
			t.Error("dropped too early")
		}
		time.Sleep(20 * time.Minute) //nolint:forbidigo // in a bubble
		synctest.Wait()
		if p.seen().dropped != 1 {
			t.Error("a broker's silence has no end")
		}
	})
}

// A bug that an answer leads to is no decision, and ends nothing.
func TestPanicsAreContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPod(t, Config{OnEnd: Stop})
		p.Hold(p.lease())
		p.set(func() { p.bug = true })
		p.rounds(2)
		p.set(func() { p.bug = false })
		p.rounds(1)
		if n := p.seen(); n.dropped != 0 || n.killed != 0 {
			t.Errorf("%+v", n)
		}
	})
}

func TestAContainerThatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPod(t, Config{OnEnd: Stop})
		p.Hold(p.lease())
		p.set(func() { p.answer, p.failStop = fault.Newf(fault.GuestRevoked, "no"), true })
		p.rounds(2)
		p.set(func() { p.failStop = false })
		p.rounds(2)
		if p.seen().killed != 1 {
			t.Errorf("killed %d times", p.seen().killed)
		}
	})
}

func TestOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPod(t, Config{Interval: -1, OnEnd: Drop})
		p.Hold(p.lease())
		time.Sleep(24 * time.Hour) //nolint:forbidigo // in a bubble
		synctest.Wait()
		if p.seen().asked != 0 {
			t.Error("asked although it is off")
		}
	})
}

func TestParseAction(t *testing.T) {
	for in, want := range map[string]Action{"": Drop, "keep": Keep, "drop": Drop, "stop": Stop} {
		if got, err := ParseAction(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := ParseAction("ignore"); err == nil {
		t.Error("accepted what is no action")
	}
}
