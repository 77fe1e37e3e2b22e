package signing

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]crypto.Signer{"Ed25519": ed}
	for name, c := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()} {
		if out[name], err = ecdsa.GenerateKey(c, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestSign(t *testing.T) {
	all := keys(t)
	for name, key := range all {
		raw, err := Sign(key, "release", "text/plain", []byte("statement"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := Sign(key, "release", "text/plain", []byte("statement"))
		if err != nil || !bytes.Equal(raw, again) {
			t.Errorf("%s: signed twice, and not the same: %v", name, err)
		}
		got, err := Open(raw, key.Public(), "text/plain")
		if err != nil || string(got) != "statement" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := Open(raw, key.Public(), "text/html"); err == nil {
			t.Errorf("%s: another type was accepted", name)
		}
		other := bytes.Replace(raw, []byte(`"c3RhdGVtZW50"`), []byte(`"c3RhdGVtZW51"`), 1)
		if _, err := Open(other, key.Public(), "text/plain"); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: another payload: %v", name, err)
		}
		for stranger, k := range all {
			if _, err := Open(raw, k.Public(), "text/plain"); stranger != name && !errors.Is(err, ErrSignature) {
				t.Errorf("signed by %s, opened by %s: %v", name, stranger, err)
			}
		}
	}
	if _, err := Open([]byte(`{"payloadType":"text/plain","payload":"","signatures":[]}`), all["P-256"].Public(), "text/plain"); !errors.Is(err, ErrSignature) {
		t.Errorf("no signature at all: %v", err)
	}
}

func TestReadKey(t *testing.T) {
	name := filepath.Join(t.TempDir(), "key")
	raw, err := x509.MarshalPKCS8PrivateKey(keys(t)["P-256"])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(name); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(name); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	key := keys(f)["Ed25519"]
	stranger := keys(f)["Ed25519"]
	raw, err := Sign(key, "", "text/plain", []byte("statement"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := Open(raw, stranger.Public(), "text/plain"); err == nil {
			t.Error("opened by a key that never signed")
		}
	})
}
