package collateral

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/sign1"
)

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// stocked is a store with all that a quote needs, and its items.
func (l *lab) stocked() []Item {
	l.t.Helper()
	s := l.store()
	if _, err := s.Collateral(l.t.Context(), request); err != nil {
		l.t.Fatal(err)
	}
	items, err := s.Items()
	if err != nil || len(items) != 4 {
		l.t.Fatalf("%d items, %v", len(items), err)
	}
	return items
}

func TestKitCrossesTheAirGap(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	items := l.stocked()
	for _, key := range []crypto.Signer{newKey(t), p256} {
		raw, err := Pack(items, l.time(), key)
		if err != nil {
			t.Fatal(err)
		}
		kit, err := Unpack(raw, newKey(t).Public(), key.Public())
		if err != nil {
			t.Fatal(err)
		}
		there := l.store(inDir(dir), offline)
		all, err := there.Import(t.Context(), kit.Items)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range all {
			if i.Err != nil {
				t.Errorf("%s: %v", i.Name, i.Err)
			}
		}
		if _, err := there.Collateral(t.Context(), request); err != nil {
			t.Error(err)
		}
	}
	if _, err := l.store(inDir(dir), offline).Collateral(t.Context(), request); err != nil {
		t.Errorf("after a new start: %v", err)
	}
}

func TestKitsThatAreNotTaken(t *testing.T) {
	l, key := newLab(t), newKey(t)
	items := l.stocked()
	good, err := Pack(items, l.time(), key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if i%13 != 0 {
			continue // every byte takes seconds
		}
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if _, err := Unpack(bad, key.Public()); !errors.Is(err, ErrKit) {
			t.Fatalf("a kit with byte %d changed: %v", i, err)
		}
	}
	for _, keys := range [][]crypto.PublicKey{nil, {newKey(t).Public()}, {"no key"}} {
		if _, err := Unpack(good, keys...); !errors.Is(err, ErrKit) {
			t.Errorf("keys %v: %v", keys, err)
		}
	}
	for name, payload := range map[string]string{
		"another format":      `{"format":"x","made":"2026-01-01T00:00:00Z","items":[]}`,
		"a name that is none": `{"format":"vouchsafe-collateral-kit/1","made":"2026-01-01T00:00:00Z","items":[{"name":"../x"}]}`,
		"a member twice":      `{"format":"vouchsafe-collateral-kit/1","format":"vouchsafe-collateral-kit/1","items":[]}`,
		"an item twice":       `{"format":"vouchsafe-collateral-kit/1","items":[{"name":"intel/rootcrl"},{"name":"intel/rootcrl"}]}`,
		"no JSON":             `x`,
	} {
		raw, err := sign1.Sign([]byte(payload), kitContent, "", key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Unpack(raw, key.Public()); !errors.Is(err, ErrKit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	raw, err := sign1.Sign([]byte(`{"format":"vouchsafe-collateral-kit/1","items":[]}`), "application/rim+cbor", "", key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Unpack(raw, key.Public())
	mentions(t, err, "signed, but as something else")

	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Pack(items, l.time(), weak)
	mentions(t, err, "not with *rsa.PublicKey")
	_, err = Pack(append(items, items[0]), l.time(), key)
	mentions(t, err, "comes twice")
}

// A kit whose maker was deceived brings nothing that a vendor did not sign, and
// then nothing at all.
func TestImportOfForgeries(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	items, forged := l.stocked(), newLab(t).stocked()
	s := l.store(inDir(dir), offline)
	_, err := s.Import(t.Context(), append(items[:3:3], forged[3]))
	mentions(t, err, "nobody who is trusted signed")
	if left, err := s.Items(); err != nil || len(left) != 0 {
		t.Errorf("%d items were taken, %v", len(left), err)
	}
}

func TestImportOfOldKits(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	old := l.stocked()
	l.pass(10 * 24 * time.Hour)
	l.state(dcap.Statement{})
	fresh := l.stocked()
	s := l.store(inDir(dir), offline)
	if _, err := s.Import(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	all, err := s.Import(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if !errors.Is(i.Err, ErrOlder) {
			t.Errorf("%s: %v, want ErrOlder", i.Name, i.Err)
		}
	}
	l.pass(25 * 24 * time.Hour) // the old ones have ended
	all, err = l.store(inDir(t.TempDir()), offline).Import(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		mentions(t, i.Err, "ended at")
	}
}
