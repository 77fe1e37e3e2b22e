package given_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/given"
)

func write(t *testing.T, mode fs.FileMode, kind string, raw []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

// A file is read up to its limit, and not beyond, also where it tells no size.
func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if raw, err := given.File(name, 5); err != nil || string(raw) != "12345" {
		t.Errorf("%q, %v", raw, err)
	}
	for _, endless := range []string{name, "/dev/zero"} {
		if raw, err := given.File(endless, 4); err == nil || raw != nil || !strings.Contains(err.Error(), endless+": larger than 4 bytes") {
			t.Errorf("%q, %v", raw, err)
		}
	}
	if _, err := given.File(name+"?", 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := given.File(filepath.Dir(name), 5); err == nil {
		t.Error("a folder was read")
	}
}

func TestSigner(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	exchange, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw := map[string][]byte{}
	for name, key := range map[string]any{"signs": private, "exchanges": exchange} {
		if raw[name], err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			t.Fatal(err)
		}
	}
	name := write(t, 0o600, "PRIVATE KEY", raw["signs"])
	if key, err := given.Signer(name); err != nil || !public.Equal(key.Public()) {
		t.Errorf("%v", err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		_, err := given.Signer(name)
		if exposed, ok := errors.AsType[*given.Exposed](err); !ok || exposed.Name != name || !strings.Contains(err.Error(), "chmod 600 ") {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	for want, name := range map[string]string{
		"does not sign":               write(t, 0o600, "PRIVATE KEY", raw["exchanges"]),
		"is not a PRIVATE KEY in PEM": write(t, 0o600, "PUBLIC KEY", raw["signs"]),
		"asn1":                        write(t, 0o600, "PRIVATE KEY", []byte("odd")),
	} {
		if _, err := given.Signer(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	public2, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := given.PublicKey(write(t, 0o644, "PUBLIC KEY", public2)); err != nil || !public.Equal(key) {
		t.Errorf("%v, %v", key, err)
	}
	if _, err := given.PublicKey(write(t, 0o644, "PRIVATE KEY", raw["signs"])); err == nil {
		t.Error("a private key was read as a public one")
	}
	if _, err := given.Certificate(write(t, 0o644, "CERTIFICATE", public2)); err == nil {
		t.Error("a key was read as a certificate")
	}
}

// What is read is cleared, and the key works without it.
func TestSignerHasItsOwnCopy(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, short, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []interface {
		crypto.Signer
		Equal(x crypto.PrivateKey) bool
	}{ec, long, short} {
		raw, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := given.Signer(write(t, 0o600, "PRIVATE KEY", raw))
		if err != nil || !key.Equal(got) {
			t.Errorf("%T: %v", key, err)
		}
	}
}
