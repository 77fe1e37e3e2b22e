package transit_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek/transit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault/vaulttest"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func holder(t *testing.T, s *vaulttest.Server, key string) *transit.Holder {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c, err := vault.New(vault.Config{
		Address: s.URL, RootCAs: roots, Now: time.Now, Auth: vault.TokenFile(vaulttest.File(t, s.Issue())),
		Pause: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return transit.New(c, "", key)
}

func TestVersionsAreKeys(t *testing.T) {
	s := vaulttest.Start(t)
	h := holder(t, s, "kbs")
	first, err := h.First(t.Context())
	if err != nil || first.ID() != "transit:transit.kbs:v1" {
		t.Fatalf("%v, %v", first, err)
	}
	key := secret.Random(kek.Size)
	wrapped, err := first.Wrap(t.Context(), key, []byte("here"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := h.Make(t.Context())
	if err != nil || second.ID() != "transit:transit.kbs:v2" {
		t.Fatalf("%v, %v", second, err)
	}
	again, err := h.Open(t.Context(), first.ID())
	if err != nil {
		t.Fatal(err)
	}
	// The first version still wraps as itself, as a late writer needs.
	if _, err := again.Wrap(t.Context(), key, nil); err != nil {
		t.Error(err)
	}
	back, err := again.Unwrap(t.Context(), wrapped, []byte("here"))
	if err != nil || !back.Equal(key) {
		t.Fatalf("unwrap: %v", err)
	}
	for name, f := range map[string]func() (secret.Bytes, error){
		"another place":  func() (secret.Bytes, error) { return again.Unwrap(t.Context(), wrapped, []byte("there")) },
		"another key":    func() (secret.Bytes, error) { return second.Unwrap(t.Context(), wrapped, []byte("here")) },
		"altered":        func() (secret.Bytes, error) { return again.Unwrap(t.Context(), flip(wrapped), []byte("here")) },
		"nothing at all": func() (secret.Bytes, error) { return again.Unwrap(t.Context(), nil, []byte("here")) },
	} {
		if _, err := f(); !errors.Is(err, kek.ErrUnwrap) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, id := range []string{"transit:transit.kbs:v3", "transit:transit.kbs:v0", "transit:transit.kbs:v01", "transit:other.kbs:v1", "local:00", ""} {
		if _, err := h.Open(t.Context(), id); !errors.Is(err, kek.ErrUnknown) {
			t.Errorf("open %q: %v", id, err)
		}
	}
	s.Forbid("kbs", 2)
	if _, err := h.Open(t.Context(), first.ID()); !errors.Is(err, kek.ErrUnknown) {
		t.Errorf("a version that may not decrypt was opened: %v", err)
	}
	// The records are sound: it is the engine that may not open them.
	if _, err := again.Unwrap(t.Context(), wrapped, []byte("here")); err == nil || errors.Is(err, kek.ErrUnwrap) {
		t.Errorf("unwrap under a version that may not decrypt: %v", err)
	}
}

func flip(b []byte) []byte {
	out := append([]byte(nil), b...)
	out[len(out)-1] ^= 1
	return out
}

func TestKeysThatAreRefused(t *testing.T) {
	s := vaulttest.Start(t)
	s.AddKey("rsa", "rsa-4096", false)
	s.AddKey("old", "aes256-gcm96", true)
	for name, want := range map[string]error{"none": transit.ErrKey, "rsa": transit.ErrKey, "old": kek.ErrUnwrap} {
		if _, err := holder(t, s, name).First(t.Context()); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An engine that answers with the wrong thing is not believed.
func TestWrongAnswers(t *testing.T) {
	for name, answer := range map[string]map[string]any{
		"another version's ciphertext": {"ciphertext": "vault:v7:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
		"no base64":                    {"ciphertext": "vault:v1:%%%"},
		"the plaintext itself":         {"ciphertext": "vault:v1:AAAA"},
		"nothing":                      {},
	} {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t)
			w, err := holder(t, s, "kbs").First(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.Mood = func(rw http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/encrypt/") && !strings.Contains(r.URL.Path, "/decrypt/") {
					return false
				}
				vaulttest.Answer(rw, answer)
				return true
			}
			if _, err := w.Wrap(t.Context(), secret.Random(32), nil); !errors.Is(err, vault.ErrUnavailable) {
				t.Errorf("wrap: %v", err)
			}
			if _, err := w.Unwrap(t.Context(), make([]byte, 60), nil); !errors.Is(err, vault.ErrUnavailable) {
				t.Errorf("unwrap: %v", err)
			}
		})
	}
}

// The whole of it: a ring under a file moves to a Vault, and then to the next
// version there, and its keys open all the while.
func TestFromFileToVault(t *testing.T) {
	s := vaulttest.Start(t)
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	file := kek.Files(filepath.Join(t.TempDir(), "master.key"))
	set, err := kek.OpenSet(t.Context(), st, time.Now, file)
	if err != nil {
		t.Fatal(err)
	}
	key := secret.Random(100)
	if err := keyring.Open(st, set).Put(t.Context(), "token/1", key); err != nil {
		t.Fatal(err)
	}
	remote := kek.Caching(holder(t, s, "kbs"), 10, time.Minute, time.Now)
	if set, err = kek.OpenSet(t.Context(), st, time.Now, remote, file); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"transit:transit.kbs:v1", "transit:transit.kbs:v2"} {
		rotated(t, set, want)
		back, err := keyring.Open(st, set).Get(t.Context(), "token/1")
		if err != nil || !back.Equal(key) {
			t.Fatalf("under %s: %v", want, err)
		}
	}
	// The file is of no use any more, and a broker without it starts.
	if _, err := kek.OpenSet(t.Context(), st, time.Now, remote); err != nil {
		t.Fatal(err)
	}
	s.Rotate("kbs") // by somebody else: the next rotation takes that version up
	rotated(t, set, "transit:transit.kbs:v3")
}

func rotated(t *testing.T, set *kek.Set, want string) {
	t.Helper()
	state, err := set.Rotate(t.Context(), "", nothing)
	if err != nil || state.Current != want {
		t.Fatalf("rotated to %+v, %v; want %s", state, err, want)
	}
	if err := walker(set).Walk(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state, err = set.State(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, k := range state.Keys {
		if k.Retired.IsZero() != (k.ID == want) {
			t.Fatalf("after the walk to %s: %+v", want, state)
		}
	}
}

// Guests that all ask at once cost one round trip, and another after the
// memory's time.
func TestTheCacheSparesTheVault(t *testing.T) {
	s := vaulttest.Start(t)
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	w, err := kek.Caching(holder(t, s, "kbs"), 2, time.Minute, now).First(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key := secret.Random(32)
	wrapped, err := w.Wrap(t.Context(), key, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	const path = "transit/decrypt/kbs"
	before := s.Count(path)
	ask := func(want int, bound string, wantErr error) {
		t.Helper()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				got, err := w.Unwrap(t.Context(), wrapped, []byte(bound))
				if !errors.Is(err, wantErr) || (err == nil && !got.Equal(key)) {
					t.Errorf("%v, want %v", err, wantErr)
				}
				got.Destroy() // what a caller does must not reach the memory
			})
		}
		wg.Wait()
		if n := s.Count(path) - before; want >= 0 && n != want {
			t.Errorf("%d round trips, want %d", n, want)
		}
	}
	ask(1, "a", nil)
	ask(1, "a", nil)
	ahead.Add(int64(2 * time.Minute))
	ask(2, "a", nil)
	ask(-1, "b", kek.ErrUnwrap)                     // a failure is not remembered, and opens nothing
	for _, bound := range []string{"x", "y", "z"} { // more than it holds
		if wrapped, err = w.Wrap(t.Context(), key, []byte(bound)); err != nil {
			t.Fatal(err)
		}
		ask(-1, bound, nil)
	}
}

func nothing(store.Tx, string, string) error { return nil }

func walker(set *kek.Set) *kek.Walker {
	return kek.NewWalker(set, func(string) kek.Wrapper { return set }, func(store.Tx, []string) error { return nil },
		slog.New(slog.DiscardHandler), keyring.Records{})
}
