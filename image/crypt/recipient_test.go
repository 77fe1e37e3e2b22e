package crypt

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// pair is a key pair in the forms that the tools take.
type pair struct {
	private      crypto.Signer
	public, cert []byte // PEM
	pkcs8        secret.Bytes
}

func newPair(t testing.TB, private crypto.Signer) pair {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	must(t, err)
	p := pair{private: private, public: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}
	der, err = x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	p.pkcs8 = secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "reader"}, NotAfter: time.Unix(1<<32, 0)}
	der, err = x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	must(t, err)
	p.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return p
}

// rsaPairs are two pairs that all tests share: RSA keys are slow to make.
var rsaPairs = sync.OnceValue(func() [2]*rsa.PrivateKey {
	a, errA := rsa.GenerateKey(rand.Reader, 2048)
	b, errB := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(errA, errB); err != nil {
		panic(err)
	}
	return [2]*rsa.PrivateKey{a, b}
})

func ecPair(t testing.TB, c elliptic.Curve) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	must(t, err)
	return newPair(t, key)
}

func keyring(t testing.TB, docs ...secret.Bytes) *Keyring {
	t.Helper()
	k := new(Keyring)
	for _, d := range docs {
		must(t, k.Add(d))
	}
	return k
}

// forms are the kinds of recipients with a key pair, and somebody else's.
func forms(t testing.TB) map[string]struct {
	scheme Scheme
	doc    []byte
	mine   secret.Bytes
	others secret.Bytes
} {
	t.Helper()
	pairs := rsaPairs()
	a, b := newPair(t, pairs[0]), newPair(t, pairs[1])
	ec := map[string]pair{"P-256": ecPair(t, elliptic.P256()), "P-384": ecPair(t, elliptic.P384()), "P-521": ecPair(t, elliptic.P521())}
	type form = struct {
		scheme Scheme
		doc    []byte
		mine   secret.Bytes
		others secret.Bytes
	}
	jwkPublic, err := jose.JSONWebKey{Key: &pairs[0].PublicKey, Algorithm: "RSA-OAEP-256"}.MarshalJSON()
	must(t, err)
	jwkPrivate, err := jose.JSONWebKey{Key: pairs[0]}.MarshalJSON()
	must(t, err)
	block, _ := pem.Decode(a.public)
	list := map[string]form{
		"JWE, RSA":      {SchemeJWE, a.public, a.pkcs8, b.pkcs8},
		"JWE, RSA, DER": {SchemeJWE, block.Bytes, a.pkcs8, b.pkcs8},
		"JWE, JWK":      {SchemeJWE, jwkPublic, secret.New(jwkPrivate), b.pkcs8},
		"PKCS#7":        {SchemePKCS7, a.cert, secret.Copy(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(pairs[0])})), b.pkcs8},
		"PKCS#11":       {SchemePKCS11, a.public, a.pkcs8, b.pkcs8},
	}
	for name, p := range ec {
		list["JWE, "+name] = form{SchemeJWE, p.public, p.pkcs8, a.pkcs8}
	}
	return list
}

func options(t testing.TB) secret.Bytes {
	t.Helper()
	_, _, priv := encrypt(t, []byte("plain"))
	doc, err := priv.Marshal()
	must(t, err)
	return doc
}

func TestRecipients(t *testing.T) {
	doc := options(t)
	for name, f := range forms(t) {
		t.Run(name, func(t *testing.T) {
			r, err := NewRecipient(f.scheme, f.doc)
			must(t, err)
			w, err := r.Wrap(doc)
			must(t, err)
			if w.Scheme != f.scheme || !strings.HasPrefix(r.String(), string(f.scheme)+" sha256:") {
				t.Errorf("%s for %s", w.Scheme, r)
			}
			must(t, w.Authentic())
			mine := keyring(t, f.others, f.mine) // the second key is tried too
			got, err := mine.Unwrap(t.Context(), w)
			must(t, err)
			if !got.Equal(doc) {
				t.Fatal("unwrapped something else")
			}
			if _, err := keyring(t, f.others).Unwrap(t.Context(), w); err == nil || !strings.Contains(err.Error(), "no private key opens") {
				t.Errorf("somebody else: %v", err)
			}
			if _, err := new(Keyring).Unwrap(t.Context(), w); err == nil {
				t.Error("nobody opens it")
			}
			refuseChanges(t, mine, w, doc)
		})
	}
}

// refuseChanges cuts and changes a packet; what still opens must be the same.
func refuseChanges(t *testing.T, k *Keyring, w WrappedKey, doc secret.Bytes) {
	t.Helper()
	try := func(what string, packet []byte) {
		t.Helper()
		if got, err := k.Unwrap(t.Context(), WrappedKey{w.Scheme, packet}); err == nil && !got.Equal(doc) {
			t.Errorf("%s: something else came out", what)
		}
	}
	for i := 0; i < len(w.Packet); i += 1 + len(w.Packet)/40 {
		if _, err := k.Unwrap(t.Context(), WrappedKey{w.Scheme, w.Packet[:i]}); err == nil {
			t.Errorf("cut at %d: it opens", i)
		}
		changed := bytes.Clone(w.Packet)
		changed[i] ^= 4
		try("changed", changed)
	}
	if _, err := k.Unwrap(t.Context(), WrappedKey{w.Scheme, append(bytes.Clone(w.Packet), bytes.Repeat([]byte(" "), maxPacket)...)}); err == nil {
		t.Error("an oversized packet opens")
	}
	if _, err := k.Unwrap(t.Context(), WrappedKey{w.Scheme, append(bytes.Clone(w.Packet), '0')}); err == nil {
		t.Error("trailing bytes are accepted")
	}
}

func TestNewRecipientRefuses(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	a, weak, edwards, ec := newPair(t, rsaPairs()[0]), newPair(t, short), newPair(t, ed), ecPair(t, elliptic.P256())
	badAlgorithm, err := jose.JSONWebKey{Key: &rsaPairs()[0].PublicKey, Algorithm: "RSA1_5"}.MarshalJSON()
	must(t, err)
	for name, c := range map[string]struct {
		scheme Scheme
		doc    []byte
		want   string
	}{
		"nothing":               {SchemeJWE, nil, "not a public key"},
		"a private key":         {SchemeJWE, a.pkcs8.Reveal(), "not a public key"},
		"a certificate":         {SchemeJWE, a.cert, "not a public key"},
		"1024 bits":             {SchemeJWE, weak.public, "too short"},
		"Ed25519":               {SchemeJWE, edwards.public, "can sign"},
		"a JWK for RSA1_5":      {SchemeJWE, badAlgorithm, "RSA1_5"},
		"PKCS#7 without one":    {SchemePKCS7, a.public, "certificate"},
		"PKCS#7 of 1024 bits":   {SchemePKCS7, weak.cert, "2048"},
		"PKCS#7 with a curve":   {SchemePKCS7, ec.cert, "RSA"},
		"PKCS#11 with a curve":  {SchemePKCS11, ec.public, "RSA"},
		"PGP":                   {"pgp", a.public, "not supported"},
		"a provider by its key": {SchemeProvider, a.public, "not supported"},
		"oversized":             {SchemeJWE, make([]byte, maxOptions+1), "too large"},
	} {
		if _, err := NewRecipient(c.scheme, c.doc); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := BrokerRecipient(kid, secret.Random(16)); err == nil {
		t.Error("a short key-encrypting key")
	}
	if _, err := BrokerRecipient("file:///a", secret.Random(32)); err == nil {
		t.Error("a key ID of another form")
	}
	k := new(Keyring)
	for name, doc := range map[string][]byte{
		"a public key": a.public, "nothing": nil, "1024 bits": weak.pkcs8.Reveal(), "Ed25519": edwards.pkcs8.Reveal(), "oversized": make([]byte, maxOptions+1),
		"a password": pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}),
	} {
		if err := k.Add(secret.Copy(doc)); err == nil {
			t.Errorf("the keyring took %s", name)
		}
	}
}

// The packets of other forms of PKCS#7 and PKCS#11 are not opened, whatever is
// in them.
func TestForeignForms(t *testing.T) {
	a := newPair(t, rsaPairs()[0])
	mine, doc := keyring(t, a.pkcs8), options(t)
	r, err := NewRecipient(SchemePKCS7, a.cert)
	must(t, err)
	w, err := r.Wrap(doc)
	must(t, err)
	change := func(f func(*contentInfo)) []byte {
		var c contentInfo
		_, err := asn1.Unmarshal(w.Packet, &c)
		must(t, err)
		f(&c)
		b, err := asn1.Marshal(c)
		must(t, err)
		return b
	}
	for name, c := range map[string]struct {
		packet []byte
		want   string
	}{
		"CBC": {change(func(c *contentInfo) {
			c.Content.Content.Algorithm.Algorithm = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
		}), "only AES-GCM"},
		"no recipients": {change(func(c *contentInfo) { c.Content.Recipients = nil }), "0 recipients"},
		"OAEP": {change(func(c *contentInfo) {
			c.Content.Recipients[0].Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
		}), "key transport"},
		"signed data":   {change(func(c *contentInfo) { c.Type = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2} }), "not enveloped"},
		"no parameters": {change(func(c *contentInfo) { c.Content.Content.Algorithm.Parameters = asn1.RawValue{} }), "parameters"},
	} {
		if _, err := mine.Unwrap(t.Context(), WrappedKey{SchemePKCS7, c.packet}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("PKCS#7, %s: %v", name, err)
		}
	}
	blob, err := json.Marshal(randomBytes(256))
	must(t, err)
	for name, packet := range map[string]string{
		"another version":           `{"version":1,"recipients":[{"version":0,"blob":` + string(blob) + `}]}`,
		"a recipient's version":     `{"version":0,"recipients":[{"version":1,"blob":` + string(blob) + `}]}`,
		"no recipients":             `{"version":0,"recipients":[]}`,
		"another hash":              `{"version":0,"recipients":[{"version":0,"hash":"md5","blob":` + string(blob) + `}]}`,
		"more recipients than read": `{"recipients":[` + strings.Repeat(`{},`, maxPackets) + `{}]}`,
	} {
		if _, err := mine.Unwrap(t.Context(), WrappedKey{SchemePKCS11, []byte(packet)}); err == nil || !strings.Contains(err.Error(), "not supported") {
			t.Errorf("PKCS#11, %s: %v", name, err)
		}
	}
}

func TestChain(t *testing.T) {
	kek, doc := secret.Random(32), options(t)
	a := newPair(t, rsaPairs()[0])
	broker, err := BrokerRecipient(kid, kek)
	must(t, err)
	jwe, err := NewRecipient(SchemeJWE, a.public)
	must(t, err)
	keys, err := WrapFor(doc, broker, jwe)
	must(t, err)
	keks := KEKs(func(_ context.Context, id string) (secret.Bytes, error) {
		if id != kid {
			return secret.Bytes{}, errors.New("no such key")
		}
		return kek, nil
	})
	both := Chain{keyring(t, a.pkcs8), keks}
	for i, w := range keys {
		got, err := both.Unwrap(t.Context(), w)
		if err != nil || !got.Equal(doc) {
			t.Errorf("packet %d: %v", i, err)
		}
		if name, err := w.Reader(); err != nil || name != []string{kid, "jwe"}[i] {
			t.Errorf("packet %d is for %q, %v", i, name, err)
		}
	}
	if _, err := both.Unwrap(t.Context(), WrappedKey{"pgp", []byte("x")}); !errors.Is(err, ErrScheme) || !strings.Contains(err.Error(), `"pgp"`) {
		t.Errorf("a kind that nobody knows: %v", err)
	}
	if _, err := (Chain{keks}).Unwrap(t.Context(), keys[1]); !errors.Is(err, ErrScheme) {
		t.Errorf("a kind that nobody here knows: %v", err)
	}
	other, err := BrokerRecipient("kbs:///a/b/c", kek)
	must(t, err)
	w, err := other.Wrap(doc)
	must(t, err)
	if _, err := both.Unwrap(t.Context(), w); err == nil || err.Error() != "no such key" {
		t.Errorf("a key that nobody has: %v", err)
	}
	if _, err := both.Unwrap(t.Context(), WrappedKey{SchemeProvider, []byte("{")}); err == nil {
		t.Error("a broken packet")
	}
	if err := (WrappedKey{"pgp", nil}).Authentic(); err == nil {
		t.Error("a kind that nobody knows passes for authentic")
	}
}

// FuzzUnwrap hands the keyring packets of every kind: it must not panic, and
// nothing may open that was not sealed.
func FuzzUnwrap(f *testing.F) {
	a := newPair(f, rsaPairs()[0])
	ring, doc := keyring(f, a.pkcs8, ecPair(f, elliptic.P256()).pkcs8), secret.Copy([]byte("sealed by us"))
	kinds := []Scheme{SchemeJWE, SchemePKCS7, SchemePKCS11}
	for i, s := range kinds {
		public := a.public
		if s == SchemePKCS7 {
			public = a.cert
		}
		r, err := NewRecipient(s, public)
		must(f, err)
		w, err := r.Wrap(doc)
		must(f, err)
		f.Add(uint8(i), w.Packet)
	}
	f.Fuzz(func(t *testing.T, kind uint8, packet []byte) {
		got, err := ring.Unwrap(t.Context(), WrappedKey{kinds[int(kind)%len(kinds)], packet})
		if err == nil && !got.Equal(doc) {
			t.Fatalf("%q opened", packet)
		}
	})
}
