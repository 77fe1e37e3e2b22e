package crypt

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

// kept is a key as a token keeps it: it decrypts, shows nothing, and counts.
type kept struct {
	key   *rsa.PrivateKey
	asked *int
	err   error
}

func (k kept) Public() crypto.PublicKey { return &k.key.PublicKey }

func (k kept) Decrypt(_ io.Reader, sealed []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	*k.asked++
	if _, ok := opts.(*rsa.OAEPOptions); !ok {
		return nil, errors.New("this must never be asked")
	}
	if k.err != nil {
		return nil, k.err
	}
	return k.key.Decrypt(nil, sealed, opts)
}

// A key that stays with its keeper opens what is under OAEP, in every form.
func TestKeptKeys(t *testing.T) {
	pairs := rsaPairs()
	a, doc := newPair(t, pairs[0]), options(t)
	asked := 0
	mine, others := new(Keyring), new(Keyring)
	must(t, mine.AddDecrypter(kept{key: pairs[0], asked: &asked}))
	must(t, others.AddDecrypter(kept{key: pairs[1], asked: &asked}))
	for name, form := range forms(t) {
		if strings.Contains(name, "P-") || form.scheme == SchemePKCS7 {
			continue
		}
		r, err := NewRecipient(form.scheme, form.doc)
		must(t, err)
		w, err := r.Wrap(doc)
		must(t, err)
		if got, err := mine.Unwrap(t.Context(), w); err != nil || !got.Equal(doc) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := others.Unwrap(t.Context(), w); err == nil {
			t.Errorf("%s was opened by another key", name)
		}
	}
	blob, err := rsa.EncryptOAEP(crypto.SHA256.New(), rand.Reader, &pairs[0].PublicKey, []byte("short"), nil)
	must(t, err)
	packet, err := json.Marshal(pkcs11JSON{Recipients: []pkcs11Recipient{{Blob: blob, Hash: "sha256"}}})
	must(t, err)
	if got, err := mine.Unwrap(t.Context(), WrappedKey{SchemePKCS11, packet}); err != nil || string(got.Reveal()) != "short" {
		t.Errorf("SHA-256: %v", err)
	}

	before := asked
	r, err := NewRecipient(SchemePKCS7, a.cert)
	must(t, err)
	w, err := r.Wrap(doc)
	must(t, err)
	if _, err := mine.Unwrap(t.Context(), w); err == nil || asked != before {
		t.Errorf("PKCS#7: %v, asked %d times", err, asked-before)
	}
}

// What the keeper complains of is told: it may be that the token is out.
func TestKeptKeyThatFails(t *testing.T) {
	pairs := rsaPairs()
	asked, ring := 0, new(Keyring)
	must(t, ring.AddDecrypter(kept{key: pairs[0], asked: &asked, err: errors.New("the token was taken out")}))
	r, err := NewRecipient(SchemePKCS11, newPair(t, pairs[0]).public)
	must(t, err)
	w, err := r.Wrap(options(t))
	must(t, err)
	if _, err := ring.Unwrap(t.Context(), w); err == nil || !strings.Contains(err.Error(), "taken out") {
		t.Errorf("%v", err)
	}
}

type strange struct{ kept }

func (strange) Public() crypto.PublicKey { return ed25519.PublicKey{} }

func TestKeptKeysThatAreRefused(t *testing.T) {
	asked := 0
	if err := new(Keyring).AddDecrypter(strange{kept{asked: &asked}}); err == nil {
		t.Error("a key was taken that decrypts nothing")
	}
	short := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: elliptic.P521().Params().P, E: 3}}
	if err := new(Keyring).AddDecrypter(kept{key: short, asked: &asked}); err == nil {
		t.Error("a short key was taken")
	}
}
