package brokers

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// stub answers with its name, or as told.
type stub struct {
	name string

	mu    sync.Mutex
	err   error
	hang  bool
	calls int
}

func (s *stub) answer(ctx context.Context) (secret.Bytes, error) {
	s.mu.Lock()
	s.calls++
	err, hang := s.err, s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return secret.Bytes{}, fault.New(fault.Unavailable, ctx.Err())
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New([]byte(s.name)), nil
}

func (s *stub) Resource(ctx context.Context, _ string) (secret.Bytes, error) { return s.answer(ctx) }
func (s *stub) TokenWithKey(ctx context.Context) (secret.Bytes, error)       { return s.answer(ctx) }
func (s *stub) WorkloadToken(ctx context.Context) (secret.Bytes, error)      { return s.answer(ctx) }
func (s *stub) ReportRefusal(ctx context.Context, _ api.GuestRefusal) (fault.Ticket, error) {
	_, err := s.answer(ctx)
	return "T", err
}

func (s *stub) Renew(ctx context.Context) error {
	_, err := s.answer(ctx)
	return err
}
func (s *stub) Forget() { s.set(errors.New("forgotten"), false) }

func (s *stub) set(err error, hang bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.hang = err, hang
}

func (s *stub) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// three is a first broker, one that stands in for it, and one that must be named.
func three(t *testing.T) (*Set, *stub, *stub, *stub) {
	t.Helper()
	a, b, c := &stub{name: "a"}, &stub{name: "b"}, &stub{name: "c"}
	s, err := New([]Broker{
		{URL: "https://A.example/t/x", Client: a}, {URL: "https://b.example:8080", Client: b},
		{URL: "https://c.example:8080", Client: c, NamedOnly: true},
	}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s, a, b, c
}

func get(t *testing.T, s *Set, uri, want string) {
	t.Helper()
	v, err := s.Resource(t.Context(), uri)
	if err != nil || string(v.Reveal()) != want {
		t.Fatalf("%s: %v, want the answer of %s", uri, err, want)
	}
}

func TestNamed(t *testing.T) {
	s, a, b, c := three(t)
	for uri, want := range map[string]string{
		"kbs:///x/y/z": "a", "kbs://b.example:8080/x/y/z": "b", "kbs://C.Example:8080/x/y/z": "c",
		"kbs://a.example/x/y/z": "a", "kbs://a.example:443/x/y/z": "a",
		"kbs://evil.example/x/y/z": "a", "kbs://b.example/x/y/z": "a", // of no broker that is configured
	} {
		get(t, s, uri, want)
	}
	b.set(fault.Newf(fault.Unavailable, "down"), false)
	if _, err := s.Resource(t.Context(), "kbs://b.example:8080/x/y/z"); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("the named broker is down: %v", err)
	}
	a.set(fault.Newf(fault.Unavailable, "down"), false)
	if _, err := s.Resource(t.Context(), "kbs:///x/y/z"); fault.CodeOf(err) != fault.Unavailable || c.asked() != 1 {
		t.Errorf("a broker that must be named stood in: %v", err)
	}
	if _, err := s.Resource(t.Context(), "kbs://b.example:8080@evil/x/y/z"); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("%v", err)
	}
}

// What a broker decides is final; what it does not answer, or not sensibly, goes
// to the next one.
func TestFailover(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		next bool
	}{
		"unreachable":         {fault.Newf(fault.Unavailable, "dial"), true},
		"malformed or broken": {fault.Newf(fault.Internal, "not JSON"), true},
		"denied":              {fault.Newf(fault.PolicyDenied, "no"), false},
		"absent":              {fault.Newf(fault.NotFound, "no"), false},
		"revoked":             {fault.Newf(fault.GuestRevoked, "no"), false},
		"evidence":            {fault.Newf(fault.EvidenceInvalid, "no"), false},
		"busy":                {fault.Newf(fault.TooMany, "no"), false},
		"another broker":      {client.ErrUnsupported, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b, _ := three(t)
			a.set(c.err, false)
			_, err := s.WorkloadToken(t.Context())
			if (b.asked() == 1) != c.next || (err == nil) != c.next {
				t.Errorf("the next one was asked %d times: %v", b.asked(), err)
			}
			if !c.next && !errors.Is(err, c.err) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A broker that hangs costs its patience once, then it is asked last, and again
// after pauses that double up to a minute.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, b, _ := three(t)
		a.set(nil, true)
		start := time.Now()
		get(t, s, "kbs:///x/y/z", "b")
		if d := time.Since(start); d != patience {
			t.Errorf("waited %v", d)
		}
		for range 10 {
			get(t, s, "kbs:///x/y/z", "b")
		}
		if a.asked() != 1 || time.Since(start) != patience {
			t.Errorf("the one that hangs was asked %d times", a.asked())
		}
		a.set(fault.Newf(fault.Unavailable, "down"), false)
		for n, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			time.Sleep(pause*time.Second - 1) //nolint:forbidigo // in a bubble
			get(t, s, "kbs:///x/y/z", "b")
			if a.asked() != n+1 {
				t.Errorf("asked in its pause of %d s", pause)
			}
			time.Sleep(time.Nanosecond) //nolint:forbidigo // in a bubble
			get(t, s, "kbs:///x/y/z", "b")
			if a.asked() != n+2 {
				t.Errorf("not asked after a pause of %d s", pause)
			}
		}
		time.Sleep(longest) //nolint:forbidigo // in a bubble
		a.set(nil, false)
		get(t, s, "kbs:///x/y/z", "a")
		b.set(errors.New("unused"), false)
		get(t, s, "kbs:///x/y/z", "a")
	})
}

// While one caller sees whether the first broker is back, the others do not wait
// for it.
func TestOneProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, _, _ := three(t)
		a.set(fault.Newf(fault.Unavailable, "down"), false)
		get(t, s, "kbs:///x/y/z", "b")
		a.set(nil, true)
		time.Sleep(firstPause) //nolint:forbidigo // in a bubble
		go func() { _, _ = s.Resource(t.Context(), "kbs:///x/y/z") }()
		synctest.Wait()
		start := time.Now()
		get(t, s, "kbs:///x/y/z", "b")
		if time.Since(start) != 0 {
			t.Error("the others wait")
		}
		synctest.Wait()
		time.Sleep(patience) //nolint:forbidigo // in a bubble
	})
}

func TestCallerGivesUp(t *testing.T) {
	s, a, b, _ := three(t)
	a.set(nil, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Resource(ctx, "kbs:///x/y/z"); fault.CodeOf(err) != fault.Unavailable || b.asked() != 0 {
		t.Errorf("%v", err)
	}
	a.set(nil, false)
	get(t, s, "kbs:///x/y/z", "a") // it says nothing of the broker
}

// All that is down is asked all the same: there is nothing better to do.
func TestAllFail(t *testing.T) {
	s, a, b, _ := three(t)
	a.set(fault.Newf(fault.Unavailable, "down"), false)
	b.set(fault.Newf(fault.Internal, "nonsense"), false)
	for range 2 {
		_, err := s.Resource(t.Context(), "kbs:///x/y/z")
		if fault.CodeOf(err) != fault.Unavailable || err.Error() != "unavailable" {
			t.Errorf("%v", err)
		}
	}
	if a.asked() != 2 || b.asked() != 2 {
		t.Errorf("asked %d and %d times", a.asked(), b.asked())
	}
}

// A decision against the guest counts, whichever broker's it is; silence is told
// if nobody decided.
func TestRenew(t *testing.T) {
	silence, decision := fault.Newf(fault.Unavailable, "down"), fault.Newf(fault.GuestRevoked, "no")
	for name, c := range map[string]struct{ a, b, want error }{
		"all well":           {},
		"the first is down":  {a: silence, want: silence},
		"the second is down": {b: silence, want: silence},
		"the second refuses": {a: silence, b: decision, want: decision},
		"the first refuses":  {a: decision, b: silence, want: decision},
	} {
		s, a, b, other := three(t)
		a.set(c.a, false)
		b.set(c.b, false)
		if err := s.Renew(t.Context()); (err == nil) != (c.want == nil) || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		s.Forget()
		if other.err == nil {
			t.Errorf("%s: not all are forgotten", name)
		}
	}
}

func TestNew(t *testing.T) {
	for name, all := range map[string][]Broker{
		"none": nil, "no host": {{URL: "https:///x"}}, "all must be named": {{URL: "https://a", NamedOnly: true}},
	} {
		if _, err := New(all, nil, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
