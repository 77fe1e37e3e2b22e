package token

import (
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const lifetime = 5 * time.Minute

// clock is set by tests and read by whatever runs.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = t
}

func (c *clock) advance(d time.Duration) { c.set(c.now().Add(d)) }

// diary notes the audit entries of transactions, retried ones too.
type diary struct {
	mu      sync.Mutex
	entries []api.AuditEntry
}

func (d *diary) AppendTx(_ store.Tx, e api.AuditEntry) (api.AuditEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, e)
	return e, nil
}

func (d *diary) kinds() (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.entries {
		out = append(out, string(e.Kind)+" "+e.Subject)
	}
	return out
}

// stage is one store with any number of replicas over it.
type stage struct {
	t     testing.TB
	clock *clock
	audit *diary
	cfg   KeysConfig
}

func newStage(t testing.TB) *stage {
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
	s := &stage{t: t, clock: &clock{at: start}, audit: &diary{}}
	s.cfg = KeysConfig{
		Store: st, Ring: keyring.Open(st, w), Audit: s.audit, Lifetime: lifetime, Now: s.clock.now, Logger: slog.New(slog.DiscardHandler),
	}
	return s
}

// replica is one broker: it issues and verifies.
type replica struct {
	t testing.TB
	*Issuer
	*Verifier
	keys *Keys
}

func (s *stage) replica() replica {
	s.t.Helper()
	keys, err := OpenKeys(s.t.Context(), s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	i, err := NewIssuer(Config{
		Keys: keys, Issuer: "test", Developer: "dev", Build: "build", Lifetime: lifetime, Now: s.clock.now,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return replica{s.t, i, NewVerifier(i, nil), keys}
}

func (r replica) issue(id string) string {
	r.t.Helper()
	text, _, err := r.Issue(r.t.Context(), id, submods())
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

// signer is the key that signs now.
func (r replica) signer() *key {
	r.t.Helper()
	k, err := r.keys.signing(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return k
}

func (r replica) rotate(how Rotation) {
	r.t.Helper()
	how.By = "admin:test"
	if how.Version == 0 {
		how.Version = store.Any
	}
	if err := r.keys.Rotate(r.t.Context(), how); err != nil {
		r.t.Fatal(err)
	}
}

func submods() map[string]Submod {
	return map[string]Submod{CPU: {
		Vector: Vector{"hardware": 2, "executables": 3}, PolicyID: "default",
		Evidence: map[string]any{"runtime_data_claims": map[string]any{
			"tee-pubkey": map[string]any{"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "eA", "y": "eQ"},
		}},
		Extensions: map[string]any{"ear.trustee.identifiers": map[string]any{}},
	}}
}
