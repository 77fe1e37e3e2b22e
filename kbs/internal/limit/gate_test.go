package limit

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

var anybody = NewGuard(Rates{}, time.Now, func(string) {})

func from(ctx context.Context, last byte) context.Context {
	return anybody.With(ctx, netip.AddrFrom4([4]byte{192, 0, 2, last}))
}

func reasonOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// One address with many waiting delays another by one.
func TestTurnsByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Width{Running: 1, Waiting: 100, Wait: time.Hour}, func(string) {})
		leave, err := g.Enter(from(t.Context(), 9))
		if err != nil {
			t.Fatal(err)
		}
		var order []byte // written by one at a time
		enter := func(who byte) {
			go func() {
				leave, err := g.Enter(from(t.Context(), who))
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, who)
				leave()
			}()
			synctest.Wait()
		}
		for _, who := range []byte{1, 1, 1, 1, 2, 3, 2} {
			enter(who)
		}
		if running, waiting := g.Load(); running != 1 || waiting != 7 {
			t.Errorf("%d run, %d wait", running, waiting)
		}
		leave()
		synctest.Wait()
		if !slices.Equal(order, []byte{1, 2, 3, 1, 2, 1, 1}) {
			t.Errorf("turns %v", order)
		}
		if running, waiting := g.Load(); running != 0 || waiting != 0 {
			t.Errorf("in the end %d run, %d wait", running, waiting)
		}
	})
}

func TestQueueEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late atomic.Int32
		g := NewGate(Width{Running: 1, Waiting: 2, Wait: 2 * time.Second}, func(r string) {
			if r == "queue_timeout" {
				late.Add(1)
			}
		})
		leave, _ := g.Enter(from(t.Context(), 1))
		outcome := make(chan error, 10)
		enter := func(ctx context.Context) {
			go func() {
				leave, err := g.Enter(ctx)
				if err == nil {
					leave()
				}
				outcome <- err
			}()
			synctest.Wait()
		}
		enter(from(t.Context(), 1))
		enter(from(t.Context(), 1))
		enter(from(t.Context(), 1)) // no room
		if err := <-outcome; reasonOf(err) != "queue_full" || fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("full: %v", err)
		}
		enter(from(t.Context(), 2)) // takes the place of the second of the first
		if err := <-outcome; reasonOf(err) != "queue_full" {
			t.Errorf("made room: %v", err)
		}
		enter(from(t.Context(), 3)) // nobody waits more than it would
		if err := <-outcome; reasonOf(err) != "queue_full" {
			t.Errorf("full for all: %v", err)
		}
		start := time.Now()
		for range 2 {
			if err := <-outcome; reasonOf(err) != "queue_timeout" || time.Since(start) != 2*time.Second {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
		}
		ctx, cancel := context.WithCancel(from(t.Context(), 1))
		enter(ctx)
		cancel()
		if err := <-outcome; !errors.Is(err, context.Canceled) || fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("gone: %v", err)
		}
		enter(from(t.Context(), 1))
		leave()
		if err := <-outcome; err != nil {
			t.Errorf("at last: %v", err)
		}
		if running, waiting := g.Load(); running != 0 || waiting != 0 || late.Load() != 2 {
			t.Errorf("%d run, %d wait, %d were told that they came late", running, waiting, late.Load())
		}
	})
}

func TestWider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Width{Running: 1, Waiting: 10, Wait: time.Hour}, func(string) {})
		var in atomic.Int32
		for range 3 {
			go func() {
				if _, err := g.Enter(t.Context()); err == nil {
					in.Add(1)
				}
			}()
		}
		synctest.Wait()
		if in.Load() != 1 {
			t.Fatalf("%d are in", in.Load())
		}
		g.Set(Width{Running: 3, Waiting: 10, Wait: time.Hour})
		synctest.Wait()
		if in.Load() != 3 {
			t.Errorf("%d are in", in.Load())
		}
	})
}

// Under any interleaving no more run than may, and nobody is lost.
func TestGateUnderLoad(t *testing.T) {
	g := NewGate(Width{Running: 3, Waiting: 8, Wait: time.Millisecond}, func(string) {})
	var now, most, served, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 50 {
				ctx, cancel := context.WithTimeout(from(context.Background(), byte(i%5)), 500*time.Microsecond)
				leave, err := g.Enter(ctx)
				if err != nil {
					refused.Add(1)
				} else {
					n := now.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						continue
					}
					now.Add(-1)
					served.Add(1)
					leave()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if running, waiting := g.Load(); running != 0 || waiting != 0 || most.Load() > 3 || served.Load()+refused.Load() != 64*50 || served.Load() == 0 {
		t.Errorf("%d run, %d wait, at most %d at once, %d served, %d refused", running, waiting, most.Load(), served.Load(), refused.Load())
	}
}

func BenchmarkGate(b *testing.B) {
	g := NewGate(Width{Running: 2, Waiting: 512, Wait: time.Minute}, func(string) {})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if leave, err := g.Enter(b.Context()); err == nil {
				leave()
			}
		}
	})
}
