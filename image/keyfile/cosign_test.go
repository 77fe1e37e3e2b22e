package keyfile

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// lockAsCosign writes a key as cosign's library does; that cosign's own are
// opened is shown by make interop-image.
func lockAsCosign(t testing.TB, der []byte, password string, n int) []byte {
	t.Helper()
	salt := make([]byte, 32)
	var nonce [24]byte
	_, _ = rand.Read(salt)
	_, _ = rand.Read(nonce[:])
	derived, err := scrypt.Key([]byte(password), salt, n, 8, 1, 32)
	must(t, err)
	sealed := secretbox.Seal(nil, der, &nonce, (*[32]byte)(derived))
	doc, err := json.Marshal(map[string]any{
		"kdf":        map[string]any{"name": "scrypt", "params": map[string]any{"N": n, "r": 8, "p": 1}, "salt": salt},
		"cipher":     map[string]any{"name": "nacl/secretbox", "nonce": nonce[:]},
		"ciphertext": sealed,
	})
	must(t, err)
	return doc
}

func TestUnlockCosign(t *testing.T) {
	file, want := newKey(t)
	for _, block := range []string{cosignBlock, oldCosignBlock} {
		for _, word := range []string{"open sesame", ""} { // cosign takes an empty password for none
			doc := secret.New(pem.EncodeToMemory(&pem.Block{Type: block, Bytes: lockAsCosign(t, want, word, 1<<10)}))
			if !Locked(doc) {
				t.Error("it does not look locked")
			}
			got, err := Unlock(doc, secret.New([]byte(word)))
			must(t, err)
			if b, _ := pem.Decode(got.Reveal()); b == nil || !bytes.Equal(b.Bytes, want) || Locked(got) {
				t.Error("another key came out")
			}
			if _, err := Unlock(doc, secret.New([]byte("open barley"))); !errors.Is(err, ErrPassword) {
				t.Errorf("a wrong password: %v", err)
			}
		}
	}
	if raw, err := os.ReadFile(file); err != nil || Locked(secret.New(raw)) {
		t.Errorf("a key without a password looks locked: %v", err)
	}
}

func TestUnlockCosignRefuses(t *testing.T) {
	good := string(lockAsCosign(t, []byte("no key"), "x", 2))
	edit := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("there is no %s in %s", old, good)
		}
		return strings.Replace(good, old, with, 1)
	}
	for name, c := range map[string]struct{ doc, reason string }{
		"nothing":              {"{}", "is not supported"},
		"no JSON":              {"key", "not well formed"},
		"something behind":     {good + "{}", "not well formed"},
		"a member twice":       {edit(`{"cipher"`, `{"ciphertext":"","cipher"`), "not well formed"},
		"another function":     {edit(`"scrypt"`, `"argon2"`), "key derivation"},
		"another cipher":       {edit(`nacl/secretbox`, `rot13`), "cipher"},
		"no power of two":      {edit(`"N":2`, `"N":3`), "not possible"},
		"nothing to do":        {edit(`"p":1`, `"p":0`), "not possible"},
		"less than nothing":    {edit(`"r":8`, `"r":-8`), "not possible"},
		"too much memory":      {edit(`"N":2`, `"N":1048576`), "costs more"},
		"many small passes":    {edit(`"N":2,"p":1,"r":8`, `"N":2,"p":400000,"r":8`), "costs more"},
		"too much work":        {edit(`"p":1`, `"p":1073741824`), "costs more"},
		"numbers that overrun": {edit(`"N":2`, `"N":4611686018427387904`), "not possible"},
		"no number":            {edit(`"N":2`, `"N":99999999999999999999`), "not well formed"},
	} {
		_, err := Unlock(secret.New(pem.EncodeToMemory(&pem.Block{Type: cosignBlock, Bytes: []byte(c.doc)})), secret.New([]byte("x")))
		if err == nil || errors.Is(err, ErrPassword) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v, want %q", name, err, c.reason)
		}
	}
	// What opens and is no key is as good as a wrong password.
	doc := secret.New(pem.EncodeToMemory(&pem.Block{Type: cosignBlock, Bytes: []byte(good)}))
	if _, err := Unlock(doc, secret.New([]byte("x"))); !errors.Is(err, ErrPassword) {
		t.Errorf("no key in it: %v", err)
	}
}

// What is accepted has lengths that the box can bear, at a cost within limits.
func FuzzParseBox(f *testing.F) {
	f.Add(lockAsCosign(f, []byte("key"), "x", 2))
	for _, n := range []string{"0", "1", "255", "256", "1073741824", "9223372036854775807", "-1"} {
		f.Add(fmt.Appendf(nil, `{"kdf":{"name":"scrypt","params":{"N":%s,"r":%s,"p":%s},"salt":"AA=="},"cipher":{"name":"nacl/secretbox","nonce":"AAAA"},"ciphertext":"AAAA"}`, n, n, n))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := parseBox(raw)
		if err != nil {
			return
		}
		if c := b.cost; 128*int64(c.r)*(int64(c.n)+int64(c.p)) > maxScryptMemory {
			t.Fatalf("%+v was accepted", c)
		}
		b.cost = scryptCost{2, 1, 1} // the cost is the caller's
		if der, err := b.open(secret.New([]byte("x"))); err == nil {
			t.Logf("a key of %d bytes", len(der))
		}
	})
}
