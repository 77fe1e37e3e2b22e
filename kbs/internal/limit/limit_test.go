package limit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

func request(remote string, forwarded ...string) *http.Request {
	r := &http.Request{RemoteAddr: remote, Header: http.Header{}}
	for _, f := range forwarded {
		r.Header.Add("X-Forwarded-For", f)
	}
	return r
}

func TestClient(t *testing.T) {
	g := NewGuard(Rates{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}, time.Now, func(string) {})
	for name, c := range map[string]struct {
		r    *http.Request
		want string
	}{
		"IPv4":                      {request("192.0.2.7:1234"), "192.0.2.7"},
		"IPv4 in IPv6":              {request("[::ffff:192.0.2.7]:1234"), "192.0.2.7"},
		"IPv6 is its /64":           {request("[2001:db8:1:2:3:4:5:6]:1"), "2001:db8:1:2::"},
		"IPv6 with a zone":          {request("[fe80::1%eth0]:1"), "fe80::"},
		"a stranger's header":       {request("192.0.2.7:1", "198.51.100.1"), "192.0.2.7"},
		"a proxy's header":          {request("10.1.1.1:1", "198.51.100.1"), "198.51.100.1"},
		"what the caller put left":  {request("10.1.1.1:1", "203.0.113.9, 198.51.100.1"), "198.51.100.1"},
		"through two proxies":       {request("10.1.1.1:1", "198.51.100.1, 10.2.2.2"), "198.51.100.1"},
		"in two headers":            {request("10.1.1.1:1", "198.51.100.1", "10.2.2.2"), "198.51.100.1"},
		"a proxy without a header":  {request("10.1.1.1:1"), "10.1.1.1"},
		"nonsense in the header":    {request("10.1.1.1:1", "198.51.100.1, nonsense"), "10.1.1.1"},
		"an IPv6 caller of a proxy": {request("[fd00::1]:1", "2001:db8::1"), "2001:db8::"},
		"no address at all":         {request("@"), "invalid IP"},
	} {
		if got := g.Client(c.r).String(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestRates(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var shed []string
	r := Rates{Burst: 2 * time.Second, Addresses: 3}
	r.PerSecond[Auth] = 5
	g := NewGuard(r, func() time.Time { return now }, func(reason string) { shed = append(shed, reason) })
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	take := func(c Class, of netip.Addr, n int) (passed int, last error) {
		for range n {
			if err := g.Take(c, of); err == nil {
				passed++
			} else {
				last = err
			}
		}
		return passed, last
	}
	passed, err := take(Auth, a, 15)
	var e *Error
	if passed != 10 || fault.CodeOf(err) != fault.TooMany || !errors.As(err, &e) || e.After != 200*time.Millisecond || e.Seconds() != 1 || len(shed) != 5 || shed[0] != "rate_auth" {
		t.Errorf("burst: %d passed, %v, shed %q", passed, e, shed)
	}
	if n, _ := take(Auth, b, 3); n != 3 {
		t.Error("another address pays for the first")
	}
	if n, _ := take(Attest, a, 100); n != 100 {
		t.Error("a class without a rate is limited")
	}
	now = now.Add(time.Second)
	if n, _ := take(Auth, a, 15); n != 5 {
		t.Errorf("after a second %d passed", n)
	}
	now = now.Add(-time.Hour) // the clock was set back: nothing is given, nothing breaks
	if n, _ := take(Auth, a, 15); n != 0 {
		t.Errorf("back in time %d passed", n)
	}
	r.PerSecond[Auth] = 0
	g.Set(r)
	if n, _ := take(Auth, a, 100); n != 100 {
		t.Error("a limit that was turned off limits")
	}
}

// However many addresses there are, no more than configured are remembered,
// and those that come often are not the ones forgotten.
func TestMemoryIsBounded(t *testing.T) {
	r := Rates{Burst: time.Second, Addresses: 100}
	r.PerSecond[Auth] = 1
	g := NewGuard(r, time.Now, func(string) {})
	busy := netip.MustParseAddr("192.0.2.1")
	if g.Take(Auth, busy) != nil {
		t.Fatal("the first was refused")
	}
	for i := range 10_000 {
		_ = g.Take(Auth, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		if i%50 == 0 && g.Take(Auth, busy) == nil {
			t.Fatalf("forgotten after %d others", i)
		}
	}
	if n := len(g.buckets[Auth].by); n != 100 || g.buckets[Auth].order.Len() != 100 {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestFail(t *testing.T) {
	if err := Fail(t.Context()); err != nil {
		t.Errorf("without a guard: %v", err)
	}
	r := Rates{Burst: time.Second, Addresses: 10}
	r.PerSecond[Failures] = 1
	g := NewGuard(r, time.Now, func(string) {})
	ctx := g.With(context.Background(), netip.MustParseAddr("192.0.2.1"))
	if Fail(ctx) != nil || fault.CodeOf(Fail(ctx)) != fault.TooMany || Client(ctx).String() != "192.0.2.1" {
		t.Error("failures are not counted")
	}
}

func BenchmarkTake(b *testing.B) {
	r := Rates{Burst: time.Second, Addresses: 16384}
	r.PerSecond[Auth] = 1e9
	g := NewGuard(r, time.Now, func(string) {})
	for _, n := range []int{1, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				i++
				_ = g.Take(Auth, netip.AddrFrom4([4]byte{10, byte(i % n >> 16), byte(i % n >> 8), byte(i % n)}))
			}
		})
	}
}
