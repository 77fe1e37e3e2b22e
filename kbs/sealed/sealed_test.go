package sealed_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
)

const (
	kid  = "kbs:///default/signing/1"
	name = "kbs:///default/secret/1"
)

func newKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keys(t testing.TB, k *ecdsa.PrivateKey) sealed.Keys {
	t.Helper()
	jwk, err := sealed.PublicJWK(&k.PublicKey, kid)
	if err != nil {
		t.Fatal(err)
	}
	return func(_ context.Context, id string) ([]byte, error) {
		if id != kid {
			return nil, errors.New("no such key")
		}
		return jwk, nil
	}
}

func TestRoundTrip(t *testing.T) {
	k := newKey(t, elliptic.P256())
	text, err := sealed.Seal("kbs", name, kid, k)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{text, text + "\n", "sealed." + text} {
		p, err := sealed.Open(t.Context(), form, keys(t, k))
		if err != nil || p.Name != name || p.Provider != "kbs" || p.Type != sealed.Vault {
			t.Errorf("%+v, %v", p, err)
		}
	}
}

// sign makes a sealed secret of any payload.
func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, payload string) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return sealed.Prefix + text
}

const good = `{"version":"0.1.0","type":"vault","name":"kbs:///a/b/c","provider":"kbs","provider_settings":{},"annotations":{}}`

func TestRefusals(t *testing.T) {
	k, other := newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	own := jose.JSONWebKey{Key: k, KeyID: kid}
	genuine := sign(t, jose.ES256, own, good)
	parts := strings.Split(genuine, ".")
	moved := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(good, "kbs:///a/b/c", "kbs:///a/b/d", 1)))
	for name, c := range map[string]struct{ text, want string }{
		"no prefix":           {genuine[len(sealed.Prefix):], "does not start"},
		"another key":         {sign(t, jose.ES256, jose.JSONWebKey{Key: other, KeyID: kid}, good), "did not sign"},
		"another name":        {strings.Join([]string{parts[0], parts[1], moved, parts[3]}, "."), "did not sign"},
		"no key ID":           {sign(t, jose.ES256, k, good), "no key ID"},
		"an unknown key":      {sign(t, jose.ES256, jose.JSONWebKey{Key: k, KeyID: "elsewhere"}, good), "no such key"},
		"another algorithm":   {sign(t, jose.HS256, jose.JSONWebKey{Key: make([]byte, 32), KeyID: kid}, good), "ES256"},
		"no signature":        {"sealed.fakejwsheader." + parts[2] + ".fakesignature", "not a JWS"},
		"too large":           {sealed.Prefix + strings.Repeat("a", sealed.MaxSize), "at most"},
		"version":             {sign(t, jose.ES256, own, strings.Replace(good, "0.1.0", "0.2.0", 1)), "version"},
		"type":                {sign(t, jose.ES256, own, strings.Replace(good, `"vault"`, `"box"`, 1)), "neither"},
		"no name":             {sign(t, jose.ES256, own, strings.Replace(good, `"name"`, `"nome"`, 1)), "no name"},
		"no annotations":      {sign(t, jose.ES256, own, strings.Replace(good, `,"annotations":{}`, "", 1)), "annotations"},
		"a member twice":      {sign(t, jose.ES256, own, strings.Replace(good, `{"version"`, `{"name":"kbs:///x/y/z","version"`, 1)), "duplicate"},
		"not JSON":            {sign(t, jose.ES256, own, "x"), "payload"},
		"settings of no sort": {sign(t, jose.ES256, own, strings.Replace(good, `"provider_settings":{}`, `"provider_settings":1`, 1)), "provider_settings"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sealed.Open(t.Context(), c.text, keys(t, k))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q in it", err, c.want)
			}
		})
	}
}

// What others write without a signature opens only where that is waived.
func TestUnsigned(t *testing.T) {
	text := "sealed.fakejwsheader." + base64.RawURLEncoding.EncodeToString([]byte(good)) + ".fakesignature"
	if p, err := sealed.UnsafeOpenUnsigned(text); err != nil || p.Name != "kbs:///a/b/c" {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "sealed.", "sealed.a.b", "sealed.a.b.c.d", "sealed.a." + base64.URLEncoding.EncodeToString([]byte(good)) + "=.c"} {
		if _, err := sealed.UnsafeOpenUnsigned(bad); err == nil {
			t.Errorf("%q opens", bad)
		}
	}
}

func TestKeysOfAnotherKind(t *testing.T) {
	if _, err := sealed.Seal("kbs", name, kid, newKey(t, elliptic.P384())); err == nil {
		t.Error("P-384 seals")
	}
	k := newKey(t, elliptic.P256())
	text, err := sealed.Seal("kbs", name, kid, k)
	if err != nil {
		t.Fatal(err)
	}
	for _, jwk := range []string{"", "{}", `{"kty":"oct","k":"AAAA"}`, `{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`} {
		if _, err := sealed.Open(t.Context(), text, func(context.Context, string) ([]byte, error) { return []byte(jwk), nil }); err == nil {
			t.Errorf("key %q verifies", jwk)
		}
	}
}

// Whatever the host writes, opening it neither panics nor succeeds without the
// owner's signature.
func FuzzOpen(f *testing.F) {
	k := newKey(f, elliptic.P256())
	text, err := sealed.Seal("kbs", name, kid, k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("sealed.a." + base64.RawURLEncoding.EncodeToString([]byte(good)) + ".c")
	find := keys(f, k)
	f.Fuzz(func(t *testing.T, in string) {
		_, _ = sealed.UnsafeOpenUnsigned(in)
		p, err := sealed.Open(context.Background(), in, find)
		if err == nil && p.Name != name {
			t.Errorf("%q opens as %+v", in, p)
		}
	})
}
