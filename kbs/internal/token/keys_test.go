package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func (r replica) accepts(text string) bool {
	r.t.Helper()
	_, err := r.Verify(r.t.Context(), text)
	if err != nil && !errors.Is(err, ErrInvalid) {
		r.t.Fatal(err)
	}
	return err == nil
}

// published returns the ids of the key set.
func (r replica) published() (ids []string) {
	r.t.Helper()
	set, err := r.keys.KeySet(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, k := range set.Keys {
		ids = append(ids, k.Kid)
	}
	return ids
}

func TestReplicasThatStartAtOnceShareTheirKeys(t *testing.T) {
	s := newStage(t)
	all := make([]*Keys, 4)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			var err error
			if all[i], err = OpenKeys(t.Context(), s.cfg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range all[1:] {
		if k.snap.Load().signer.id != all[0].snap.Load().signer.id {
			t.Error("two replicas sign with two keys")
		}
	}
	if got := s.audit.kinds(); !slices.Contains(got, "token.key.create kbs") {
		t.Errorf("the log has %q", got)
	}
}

func TestRotationOverlaps(t *testing.T) {
	s := newStage(t)
	a, b := s.replica(), s.replica()
	before := a.published()
	if len(before) != 2 || before[0] != a.signer().id {
		t.Fatalf("published %q, %s signs", before, a.signer().id)
	}
	s.clock.advance(PublishedFirst)
	old, made := b.issue("old"), s.clock.now()
	a.rotate(Rotation{})
	if a.signer().id != before[1] {
		t.Fatal("the key that signs was not the one published as next")
	}
	fresh := a.issue("new")
	// b has not looked yet: it signs with the key before, which a accepts, and
	// knows the one after.
	if b.signer().id != before[0] || !a.accepts(b.issue("late")) || !b.accepts(fresh) {
		t.Error("two replicas at two versions do not accept each other")
	}
	s.clock.advance(refreshEvery)
	if b.signer().id != before[1] {
		t.Error("the other replica did not see the rotation")
	}
	if old2 := b.issue("x"); !a.accepts(old2) {
		t.Error("replicas disagree")
	}
	s.clock.set(made.Add(lifetime))
	if !a.accepts(old) {
		t.Error("a token died with the rotation")
	}
	if got := a.published(); !slices.Contains(got, before[0]) || len(got) != 3 {
		t.Errorf("published %q", got)
	}
	// The audit log names who did it.
	if got := s.audit.kinds(); got[len(got)-1] != "token.key.rotate admin:test" {
		t.Errorf("the log has %q", got)
	}
}

func TestRetiredKeyEndsAfterItsTokens(t *testing.T) {
	s := newStage(t)
	a := s.replica()
	first := a.signer().id
	s.clock.advance(PublishedFirst)
	a.rotate(Rotation{})
	s.clock.advance(lifetime + grace - time.Second)
	if !slices.Contains(a.published(), first) {
		t.Error("the key is gone while a token of it may be good")
	}
	s.clock.advance(2 * time.Second)
	if slices.Contains(a.published(), first) {
		t.Error("the key is still published")
	}
	if _, ok, err := a.keys.public(t.Context(), first); ok || err != nil {
		t.Errorf("the key still verifies: %v", err)
	}
	// The next rotation removes it from the ring as well.
	s.clock.advance(PublishedFirst)
	a.rotate(Rotation{})
	if _, err := s.cfg.Ring.Get(t.Context(), nameKey+first); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the private key is still there: %v", err)
	}
}

func TestRevocationEndsEveryToken(t *testing.T) {
	s := newStage(t)
	a, b := s.replica(), s.replica()
	old := a.issue("old")
	a.rotate(Rotation{Revoke: true})
	s.clock.advance(refreshEvery)
	if a.accepts(old) || b.accepts(old) {
		t.Error("a token outlived the revocation of its key")
	}
	if !b.accepts(a.issue("new")) {
		t.Error("nothing is accepted any more")
	}
}

func TestRotationRefusals(t *testing.T) {
	s := newStage(t)
	a := s.replica()
	seen, err := a.keys.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.keys.Rotate(t.Context(), Rotation{Version: store.Any}); !errors.Is(err, ErrTooSoon) || !errors.Is(err, store.ErrConflict) {
		t.Errorf("a young key: %v", err)
	}
	a.rotate(Rotation{Now: true})
	if err := a.keys.Rotate(t.Context(), Rotation{Now: true, Version: store.Version(seen.Version)}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a stale version: %v", err)
	}
	left := 0
	err = s.cfg.Store.View(t.Context(), func(tx store.Tx) error {
		all, err := tx.List("keyring/"+nameKey, "", 100)
		left = len(all)
		return err
	})
	if err != nil || left != 4 { // the authority, retired, current, next
		t.Errorf("the ring has %d keys: %v", left, err)
	}
}

func TestOneReplicaRotatesByAge(t *testing.T) {
	s := newStage(t)
	s.cfg.RotateAfter = 24 * time.Hour
	a, b := s.replica(), s.replica()
	first := a.signer().id
	maintain := func() {
		t.Helper()
		var wg sync.WaitGroup
		for _, r := range []replica{a, b} {
			wg.Go(func() {
				if err := r.keys.Maintain(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	s.clock.advance(24*time.Hour - time.Second)
	maintain()
	if a.signer().id != first {
		t.Fatal("rotated too early")
	}
	s.clock.advance(time.Second)
	maintain()
	s.clock.advance(refreshEvery)
	maintain()
	if a.signer().id == first || a.signer().id != b.signer().id {
		t.Error("no rotation, or two of them")
	}
	rotations := 0
	for _, k := range s.audit.kinds() {
		if k == "token.key.rotate kbs" {
			rotations++
		}
	}
	if rotations != 1 {
		t.Errorf("%d rotations", rotations)
	}
}

// Who can write to the store but lacks the key-encryption key cannot make the
// broker accept a key of his own.
func TestAKeyThatIsNotSealedIsRefused(t *testing.T) {
	s := newStage(t)
	a := s.replica()
	err := a.keys.change(t.Context(), "thief", func(x *index) (e api.AuditEntry, err error) {
		x.Keys = append(x.Keys, indexed{ID: strings.Repeat("0", 32), State: StateExternal})
		return e, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.clock.advance(refreshEvery)
	if _, ok, err := a.keys.public(t.Context(), strings.Repeat("0", 32)); ok || err != nil {
		t.Errorf("accepted: %v", err)
	}
	err = s.cfg.Store.Update(t.Context(), func(tx store.Tx) error {
		_, err := tx.Put("keyring/"+nameKey+strings.Repeat("0", 32), []byte(`{"under":"x","data_key":"AA==","value":"AA=="}`), store.Any)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.clock.advance(stalest + time.Second)
	if _, ok, err := a.keys.public(t.Context(), strings.Repeat("0", 32)); ok || err == nil {
		t.Error("a record that does not open went unnoticed")
	}
}

func signerFiles(t *testing.T, private any) Signer {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	s := Signer{KeyPath: filepath.Join(t.TempDir(), "key.pem"), CertURL: "https://as.example/cert.pem"}
	s.write(t, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return s
}

func (s Signer) write(t *testing.T, b *pem.Block) {
	t.Helper()
	if err := os.WriteFile(s.KeyPath, pem.EncodeToMemory(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newP256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestConfiguredSigner(t *testing.T) {
	s := newStage(t)
	files := signerFiles(t, newP256(t))
	s.cfg.Signer = &files
	a := s.replica()
	s.cfg.Signer = nil
	other := s.replica() // keys of its own, over the same store
	old := a.issue("old")
	if !other.accepts(old) {
		t.Error("another replica does not know the signer's key")
	}
	first := a.signer().id
	if err := a.keys.Rotate(t.Context(), Rotation{Version: store.Any}); !errors.Is(err, ErrFile) {
		t.Errorf("rotation: %v", err)
	}
	// A new file signs within seconds; a broken one changes nothing.
	sec1, err := x509.MarshalECPrivateKey(newP256(t))
	if err != nil {
		t.Fatal(err)
	}
	files.write(t, &pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})
	s.clock.advance(refreshEvery)
	second := a.signer().id
	if second == first || !other.accepts(a.issue("new")) || !a.accepts(old) {
		t.Error("the new file does not sign, or the old token is dead")
	}
	files.write(t, &pem.Block{Type: "NONSENSE"})
	s.clock.advance(refreshEvery)
	if a.signer().id != second {
		t.Error("a broken file took effect")
	}
	// The old key's lease ends by itself; that of the new one is renewed.
	s.clock.advance(a.keys.leaseFor())
	if got := a.published(); slices.Contains(got, first) || !slices.Contains(got, second) {
		t.Errorf("published %q", got)
	}
	if got := s.audit.kinds(); !slices.Contains(got, "token.key.publish kbs") {
		t.Errorf("the log has %q", got)
	}
}

func TestSignerFilesThatStopTheStart(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := signerFiles(t, newP256(t))
	withCert := func(text string) Signer {
		s := good
		s.CertPath = filepath.Join(t.TempDir(), "cert.pem")
		if err := os.WriteFile(s.CertPath, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return s
	}
	stranger, err := newAuthority(start)
	if err != nil {
		t.Fatal(err)
	}
	_, cert := pem.Decode(stranger.Reveal())
	for name, c := range map[string]struct {
		files Signer
		want  string
	}{
		"P-384":              {signerFiles(t, p384), "P-256"},
		"RSA":                {signerFiles(t, rsaKey), "ECDSA"},
		"missing":            {Signer{KeyPath: "/does/not/exist"}, "no such file"},
		"another's cert":     {withCert(string(cert)), "not that of the key"},
		"no cert in there":   {withCert("hello"), "not PEM"},
		"a key for the cert": {withCert(string(stranger.Reveal())), "PRIVATE KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.cfg.Signer = &c.files
			if _, err := OpenKeys(t.Context(), s.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestKeySurvivesTheRing(t *testing.T) {
	s := newStage(t)
	k := s.replica().signer()
	text, err := k.marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseKey(text, "")
	if err != nil || again.id != k.id || again.header != k.header || !again.private.Equal(k.private) {
		t.Errorf("another key came back: %v", err)
	}
}

// FuzzParseKey: what is accepted is written back to what it means.
func FuzzParseKey(f *testing.F) {
	text, err := newAuthority(start)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text.Reveal())
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := parseKey(secret.New(raw), "")
		if err != nil {
			return
		}
		text, err := k.marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseKey(text, "")
		if err != nil || again.id != k.id || len(again.chain) != len(k.chain) {
			t.Fatalf("came back as another key: %v", err)
		}
	})
}
