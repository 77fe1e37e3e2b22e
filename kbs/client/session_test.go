package client

import (
	"context"
	"encoding/base64"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

func testSession(life time.Duration) *session {
	return &session{expires: time.Now().Add(life), renewAt: time.Now().Add(life)}
}

// All who wait while a renewal fails get that failure; each would otherwise
// start a handshake of its own against a broker that just refused.
func TestWaitersShareOneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := fault.New(fault.EvidenceInvalid, errors.New("no"))
		opened := 0
		release := make(chan struct{})
		s := &sessions{now: time.Now, open: func(context.Context) (*session, error) {
			opened++
			<-release
			return nil, refused
		}}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := s.get(t.Context(), nil); !errors.Is(err, refused) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		if opened != 1 {
			t.Errorf("%d handshakes", opened)
		}
		// The failure is not remembered.
		if _, err := s.get(t.Context(), nil); !errors.Is(err, refused) || opened != 2 {
			t.Errorf("%v after %d handshakes", err, opened)
		}
	})
}

// A leader or a waiter that gives up leaves the others alone.
func TestCancelledCallersPoisonNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := testSession(time.Hour)
		opened := 0
		release := make(chan struct{})
		s := &sessions{now: time.Now, open: func(ctx context.Context) (*session, error) {
			opened++
			select {
			case <-ctx.Done():
				return nil, fault.New(fault.Unavailable, ctx.Err())
			case <-release:
				return want, nil
			}
		}}
		leader, stopLeader := context.WithCancel(t.Context())
		waiter, stopWaiter := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		cancelled := func(ctx context.Context) func() {
			return func() {
				if _, err := s.get(ctx, nil); !errors.Is(err, context.Canceled) || fault.CodeOf(err) != fault.Unavailable {
					t.Errorf("got %v", err)
				}
			}
		}
		wg.Go(cancelled(leader))
		synctest.Wait()
		wg.Go(cancelled(waiter))
		for range 10 {
			wg.Go(func() {
				if got, err := s.get(t.Context(), nil); err != nil || got != want {
					t.Errorf("got %v, %v", got, err)
				}
			})
		}
		synctest.Wait()
		stopWaiter()
		synctest.Wait()
		stopLeader()
		synctest.Wait()
		close(release)
		wg.Wait()
		if opened != 2 {
			t.Errorf("%d handshakes", opened)
		}
	})
}

// Callers whose session was refused at different times never throw away a
// newer one.
func TestRefusedSessionIsReplacedOnce(t *testing.T) {
	opened := 0
	s := &sessions{now: time.Now, open: func(context.Context) (*session, error) {
		opened++
		return testSession(time.Hour), nil
	}}
	first, err := s.get(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.get(t.Context(), first)
	if err != nil || second == first {
		t.Fatalf("the refused session came back (%v)", err)
	}
	third, err := s.get(t.Context(), first)
	if err != nil || third != second || opened != 2 {
		t.Fatalf("a late caller caused %d handshakes (%v)", opened, err)
	}
}

func TestPanickingAttesterBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := true
		release := make(chan struct{})
		s := &sessions{now: time.Now, open: func(context.Context) (*session, error) {
			if panics {
				<-release
				panics = false
				panic("broken")
			}
			return testSession(time.Hour), nil
		}}
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_, _ = s.get(t.Context(), nil)
		})
		synctest.Wait()
		wg.Go(func() {
			if got, err := s.get(t.Context(), nil); err != nil || got == nil {
				t.Errorf("the one who waited got %v, %v", got, err)
			}
		})
		synctest.Wait()
		close(release)
		wg.Wait()
	})
}

func TestNewSession(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tt := range []struct {
		exp  string
		want int64 // renewAt
	}{
		{"2000", 1970}, {"2000.9", 1970}, {"1100", 1080}, {"1000", 1000}, {"900", 900},
		// With its own beginning only its length counts, whatever this guest's clock says.
		{`2000,"iat":1700`, 1270}, {`900,"iat":600`, 1270}, {`90000,"iat":89700`, 1270}, {`1e9,"iat":0`, 1000 + 24*3600 - 30},
		{`2000,"iat":2000`, 1970}, {`2000,"iat":3000`, 1970}, {`2000,"iat":-1`, 1970}, {`2000,"iat":"1900"`, 1970}, {`2000,"iat":null`, 1970},
	} {
		s, err := newSession("e30."+base64.RawURLEncoding.EncodeToString([]byte(`{"exp":`+tt.exp+`}`))+".AA", nil, now)
		if err != nil || s.renewAt.Unix() != tt.want {
			t.Errorf("exp %s: renew at %v, %v", tt.exp, s, err)
		}
	}
}

func FuzzTokenExpiry(f *testing.F) {
	for _, s := range []string{"e30.eyJleHAiOjF9.AA", "e30.eyJleHAiOjEuNX0.AA", "..", "a.b.c", "e30.e30.AA", "e30.eyJleHAiOjFlMzAwfQ.AA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, life, err := tokenExpiry(s)
		if err != nil {
			return
		}
		if life < 0 || life > maxLife {
			t.Fatalf("lives %v", life)
		}
		if at.Unix() < 0 || at.Unix() > 1<<40 {
			t.Fatalf("expiry %v", at)
		}
		for _, c := range []byte(s) {
			if c <= ' ' || c > '~' {
				t.Fatalf("accepted a token that is no header value: %q", s)
			}
		}
	})
}
