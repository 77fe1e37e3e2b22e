package challenge

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

var start = time.Date(2026, 11, 22, 12, 59, 0, 0, time.UTC)

type clock struct{ t atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.t.Load()) }
func (c *clock) advance(d time.Duration) { c.t.Add(int64(d)) }

func newClock() *clock {
	c := &clock{}
	c.t.Store(start.UnixNano())
	return c
}

func newRing(t testing.TB) *keyring.Ring {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	w, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	return keyring.Open(st, w)
}

func example(expires time.Time) Challenge {
	return Challenge{
		Platform: "snp", Version: "0.4.0", Nonce: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", Hash: "sha384", Policy: "default",
		Ceremony: "00112233445566778899aabbccddeeff", Expires: expires,
	}
}

func TestSealAndOpen(t *testing.T) {
	c := newClock()
	ring := newRing(t)
	s := NewSealer(ring, "default", c.now)
	cookie, sealed, err := s.Seal(t.Context(), example(start.Add(5*time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Open(t.Context(), cookie); err != nil || got != sealed || got.Nonce != example(start).Nonce {
		t.Fatalf("%+v, %v; want %+v", got, err, sealed)
	}
	// Another replica, and another clock a little off.
	if got, err := NewSealer(ring, "default", func() time.Time { return start.Add(-59 * time.Minute) }).Open(t.Context(), cookie); err != nil || got != sealed {
		t.Errorf("a replica behind: %v", err)
	}
	c.advance(5*time.Minute - time.Nanosecond)
	if _, err := s.Open(t.Context(), cookie); err != nil {
		t.Errorf("in the next hour, before it expires: %v", err)
	}
	c.advance(time.Nanosecond)
	if _, err := s.Open(t.Context(), cookie); !errors.Is(err, ErrCookie) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %v", err)
	}
}

// Two hours later the key is gone from the ring, and not accepted where it is
// still remembered.
func TestRotation(t *testing.T) {
	c := newClock()
	ring := newRing(t)
	s := NewSealer(ring, "default", c.now)
	cookie, _, err := s.Seal(t.Context(), example(start.Add(24*time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	epoch := start.Unix() / 3600
	for hour, open := range []bool{true, true, false, false} {
		if _, err := s.Open(t.Context(), cookie); (err == nil) != open {
			t.Errorf("after %d hours: %v", hour, err)
		}
		c.advance(time.Hour)
	}
	if _, err := ring.Get(t.Context(), keyName(epoch)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the old key: %v", err)
	}
	second, _, err := s.Seal(t.Context(), example(c.now().Add(time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), second); err != nil {
		t.Error(err)
	}
}

func TestForeignCookies(t *testing.T) {
	c := newClock()
	ring := newRing(t)
	s := NewSealer(ring, "default", c.now)
	good, _, err := s.Seal(t.Context(), example(start.Add(time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := NewSealer(newRing(t), "default", c.now).Seal(t.Context(), example(start.Add(time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, _, err := NewSealer(ring, "red", c.now).Seal(t.Context(), example(start.Add(time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{
		"empty": "", "field's": "00112233445566778899aabbccddeeff", "path": "../policy/x", "too long": strings.Repeat("A", MaxCookie+1),
		"another broker's": other, "another tenant's": elsewhere,
		"padded": good + "=", "line break": good[:8] + "\n" + good[8:], "cut": good[:len(good)-4], "longer": good + "AAAA",
		"standard alphabet": base64.StdEncoding.EncodeToString(raw),
	}
	for i := range raw { // expiry and key number are bound like the rest
		b := append([]byte(nil), raw...)
		b[i] ^= 1
		cases[fmt.Sprint("bit flipped in byte ", i)] = base64.RawURLEncoding.EncodeToString(b)
	}
	for name, cookie := range cases {
		if c, err := s.Open(t.Context(), cookie); !errors.Is(err, ErrCookie) {
			t.Errorf("%.40s: %+v, %v", name, c, err)
		}
	}
	if _, _, err := s.Seal(t.Context(), Challenge{Nonce: strings.Repeat("n", MaxCookie), Expires: start}); err == nil {
		t.Error("a cookie that clients would drop")
	}
}

// A challenge has one name in the store, however its cookie is written.
func TestOneKeyForOneChallenge(t *testing.T) {
	c := newClock()
	s := NewSealer(newRing(t), "default", c.now)
	expires := start.Add(time.Minute)
	for range 8 { // lengths differ, so that some have spare bits in their last character
		expires = expires.Add(time.Second)
		x := example(expires)
		x.Platform = strings.Repeat("p", expires.Second())
		cookie, sealed, err := s.Seal(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		for _, last := range alphabet {
			other := cookie[:len(cookie)-1] + string(last)
			if got, err := s.Open(t.Context(), other); err == nil && (other != cookie || got.Key() != sealed.Key()) {
				t.Errorf("%q opens as %q", other, cookie)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	c := newClock()
	s := NewSealer(newRing(f), "default", c.now)
	good, _, err := s.Seal(f.Context(), example(start.Add(time.Minute)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("00112233445566778899aabbccddeeff")
	f.Add("AQAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, cookie string) {
		if _, err := s.Open(t.Context(), cookie); err == nil && cookie != good {
			t.Fatalf("opened %q", cookie)
		}
	})
}
