// Package limit keeps one caller, or many at once, from taking the broker away
// from the others.
//
// A [Guard] counts what an address does before anybody knows who it is. A
// [Gate] lets as much costly work run as there are CPUs, and makes the rest
// wait in a queue that is short, fair between addresses, and ends. A [Book]
// records a refusal that repeats itself once a minute instead of each time, so
// that callers who never attested cannot fill the store.
//
// All memory is bounded by the configuration, whatever callers do. Whoever is
// turned away is told when to come again ([Error]).
package limit

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// Class is what is counted.
type Class int

// The classes. None is for routes that are not counted.
const (
	None Class = iota
	Auth
	Attest
	Failures
	classes int = iota
)

// String names the class as metrics do.
func (c Class) String() string { return [...]string{"none", "auth", "attest", "failures"}[c] }

// Error is the cause of a fault with code too_many_requests or unavailable.
type Error struct {
	Reason string        // as metrics name it
	After  time.Duration // when to come again
}

// Error says why, for the log.
func (e *Error) Error() string { return fmt.Sprintf("%s: come again in %s", e.Reason, e.After) }

// Seconds is After for the header Retry-After: whole seconds, at least one.
func (e *Error) Seconds() int { return max(1, int(math.Ceil(e.After.Seconds()))) }

// Rates are what a guard allows to one address.
type Rates struct {
	PerSecond [classes]float64 // by class; 0 is no limit
	Burst     time.Duration    // how much time's worth may come at once
	Addresses int              // remembered; beyond it the longest silent is forgotten
	Proxies   []netip.Prefix   // whose X-Forwarded-For is believed
}

// Guard holds a token bucket for each class and address. It is safe for
// concurrent use.
type Guard struct {
	now   func() time.Time
	shed  func(reason string)
	rates atomic.Pointer[Rates]

	mu      sync.Mutex
	buckets [classes]lru
}

// NewGuard returns a guard. It tells shed of everything that it refuses.
func NewGuard(r Rates, now func() time.Time, shed func(reason string)) *Guard {
	g := &Guard{now: now, shed: shed}
	g.Set(r)
	return g
}

// Set changes the rates; what was counted stays counted.
func (g *Guard) Set(r Rates) { g.rates.Store(&r) }

// Client returns the address that a request counts for: an IPv4 address, or
// the /64 that a single host gets of IPv6. X-Forwarded-For is believed from a
// trusted proxy only, from the right and no further than to the first address
// that is not one: what stands left of it the caller wrote.
func (g *Guard) Client(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // all that have none share one bucket
	}
	addr := at.Addr().Unmap()
	proxies := g.rates.Load().Proxies
	if len(proxies) > 0 {
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0 && within(proxies, addr); i-- {
			hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
			if err != nil {
				break
			}
			addr = hop.Unmap()
		}
	}
	if addr.Is6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	return addr
}

func within(all []netip.Prefix, a netip.Addr) bool {
	for _, p := range all {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Take counts one of a class for an address. It returns a fault with code
// too_many_requests if there were too many.
func (g *Guard) Take(c Class, a netip.Addr) error {
	r := g.rates.Load()
	rate := r.PerSecond[c]
	if rate == 0 {
		return nil
	}
	full := math.Max(1, rate*r.Burst.Seconds())
	now := g.now()
	g.mu.Lock()
	b, fresh := g.buckets[c].get(a, r.Addresses)
	if fresh {
		b.tokens = full
	} else if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.tokens = math.Min(full, b.tokens+passed*rate)
	}
	b.at = now
	ok := b.tokens >= 1
	if ok {
		b.tokens--
	}
	missing := 1 - b.tokens
	g.mu.Unlock()
	if ok {
		return nil
	}
	g.shed("rate_" + c.String())
	return fault.New(fault.TooMany, &Error{"rate_" + c.String(), time.Duration(missing / rate * float64(time.Second))})
}

type key struct{}

type client struct {
	guard *Guard
	addr  netip.Addr
}

// With notes in a context for whom its work is done.
func (g *Guard) With(ctx context.Context, a netip.Addr) context.Context {
	return context.WithValue(ctx, key{}, client{g, a})
}

// Client returns the address for whom a context's work is done; without a
// guard, the zero address.
func Client(ctx context.Context) netip.Addr {
	c, _ := ctx.Value(key{}).(client)
	return c.addr
}

// Fail counts a failure of the caller of a context. It returns a fault instead
// of nil if that caller failed too often: then the failure is not recorded.
func Fail(ctx context.Context) error {
	c, ok := ctx.Value(key{}).(client)
	if !ok {
		return nil
	}
	return c.guard.Take(Failures, c.addr)
}
