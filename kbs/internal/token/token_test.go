package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newIssuer(t testing.TB, now func() time.Time) *Issuer {
	t.Helper()
	text, err := GenerateKey(start)
	if err != nil {
		t.Fatal(err)
	}
	key, cert, err := ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewIssuer(Config{
		Key: key, Certificate: cert, Issuer: "test", Developer: "dev", Build: "build", Lifetime: 5 * time.Minute, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
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

func TestIssueAndVerify(t *testing.T) {
	now := start
	i := newIssuer(t, func() time.Time { return now })
	text, exp, err := i.Issue("id-1", submods())
	if err != nil {
		t.Fatal(err)
	}
	c, err := i.Verify(text)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID != "id-1" || !c.Expires.Equal(exp) || c.Submods[CPU].Status != Affirming || c.Submods[CPU].PolicyID != "default" {
		t.Fatalf("claims: %+v", c)
	}
	if key, err := c.TEEKey(); err != nil || key.Kty != "EC" || key.X != "eA" {
		t.Fatalf("key %+v, %v", key, err)
	}
	now = exp.Add(-time.Nanosecond)
	if _, err := i.Verify(text); err != nil {
		t.Fatalf("just before expiry: %v", err)
	}
	now = exp
	if _, err := i.Verify(text); !errors.Is(err, ErrInvalid) {
		t.Fatalf("at expiry: %v", err)
	}
	now = start.Add(-time.Minute)
	if _, err := i.Verify(text); !errors.Is(err, ErrInvalid) {
		t.Fatalf("before it was issued: %v", err)
	}
}

// The header is what third parties rely on (kbs-protocol 10 and 20.7): typ,
// alg, kid and a jwk whose x5c certifies the very key.
func TestHeader(t *testing.T) {
	i := newIssuer(t, func() time.Time { return start })
	text, _, err := i.Issue("id", submods())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	var h struct {
		Typ, Alg, Kid string
		JWK           struct {
			Kty, Crv, Alg, X, Y string
			X5c                 [][]byte // standard base64
		}
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		t.Fatal(err)
	}
	if h.Typ != "JWT" || h.Alg != "ES256" || h.Kid != i.KeyID() || h.JWK.Kty != "EC" || h.JWK.Crv != "P-256" || h.JWK.Alg != "ES256" {
		t.Fatalf("header %s", raw)
	}
	if len(h.JWK.X5c) != 1 {
		t.Fatalf("x5c has %d certificates", len(h.JWK.X5c))
	}
	cert, err := x509.ParseCertificate(h.JWK.X5c[0])
	if err != nil || !i.cfg.Key.PublicKey.Equal(cert.PublicKey) {
		t.Fatalf("x5c does not certify the key: %v", err)
	}
	x, err := base64.RawURLEncoding.DecodeString(h.JWK.X)
	if err != nil || len(x) != 32 {
		t.Fatalf("x is %d bytes: %v", len(x), err)
	}
}

func TestForgeries(t *testing.T) {
	now := func() time.Time { return start }
	i := newIssuer(t, now)
	good, _, err := i.Issue("id", submods())
	if err != nil {
		t.Fatal(err)
	}
	other := newIssuer(t, now)
	foreign, _, err := other.Issue("id", submods())
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	sign := func(alg jose.SignatureAlgorithm, key any, kid, payload string) string {
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", kid))
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
		return text
	}
	thief, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	claims := fmt.Sprintf(`{"iss":"test","exp":%d,"submods":{"cpu0":{"ear.status":"affirming"}}}`, start.Unix()+60)
	cases := map[string]string{
		"empty":                      "",
		"not a token":                "a.b.c",
		"no signature":               parts[0] + "." + parts[1] + ".",
		"alg none":                   b64([]byte(`{"alg":"none","kid":"`+i.KeyID()+`"}`)) + "." + parts[1] + ".",
		"another issuer's":           foreign,
		"own kid, stolen header key": sign(jose.ES256, thief, i.KeyID(), claims),
		"hmac with the public key":   sign(jose.HS256, i.cfg.Certificate.RawSubjectPublicKeyInfo, i.KeyID(), claims),
		"payload changed":            parts[0] + "." + b64([]byte(claims)) + "." + parts[2],
		"no kid":                     sign(jose.ES256, i.cfg.Key, "", claims),
		"no expiry":                  sign(jose.ES256, i.cfg.Key, i.KeyID(), `{"iss":"test"}`),
		"expiry null":                sign(jose.ES256, i.cfg.Key, i.KeyID(), `{"iss":"test","exp":null}`),
		"other iss":                  sign(jose.ES256, i.cfg.Key, i.KeyID(), strings.Replace(claims, "test", "evil", 1)),
		"payload not an object":      sign(jose.ES256, i.cfg.Key, i.KeyID(), `[]`),
		"trailing":                   good + ".x",
		"too large":                  strings.Repeat("a", MaxSize+1),
	}
	for name, text := range cases {
		if _, err := i.Verify(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: accepted (%v)", name, err)
		}
	}
	// The baseline of the cases above is accepted, so each fails for its name.
	if _, err := i.Verify(sign(jose.ES256, i.cfg.Key, i.KeyID(), claims)); err != nil {
		t.Errorf("baseline refused: %v", err)
	}
}

func TestExtensionsCannotReplaceTheVerdict(t *testing.T) {
	s := Submod{Vector: Vector{"hardware": 97}, Extensions: map[string]any{"ear.status": "affirming"}}
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var c AppraisalClaims
	if err := json.Unmarshal(raw, &c); err != nil || c.Status != Contraindicated {
		t.Fatalf("%s: %v", raw, err)
	}
}

func TestTiers(t *testing.T) {
	for v, want := range map[int8]Status{
		0: None, 1: None, -1: None, 2: Affirming, 31: Affirming, -2: Affirming, -32: Affirming,
		32: Warning, 95: Warning, -33: Warning, -96: Warning, 96: Contraindicated, 127: Contraindicated, -97: Contraindicated, -128: Contraindicated,
	} {
		if got := Tier(v); got != want {
			t.Errorf("Tier(%d) = %s, want %s", v, got, want)
		}
	}
	if got := (Vector{}).Status(); got != None {
		t.Errorf("an empty vector is %s", got)
	}
	if got := (Vector{"hardware": 2, "executables": 33}).Status(); got != Warning {
		t.Errorf("the worst member does not decide: %s", got)
	}
	if (Vector{"hardwear": 2}).Validate() == nil {
		t.Error("a misspelt claim is accepted")
	}
}

// FuzzVerify accepts no text but the one that was signed.
//
// Run it with -fuzzminimizetime=5x: signatures and the store make coverage
// vary from run to run, and the minimiser would spend all its time on that.
func FuzzVerify(f *testing.F) {
	i := newIssuer(f, func() time.Time { return start })
	good, _, err := i.Issue("id", submods())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := i.Verify(text)
		if err == nil && text != good && c.ID != "id" {
			t.Fatalf("accepted %q", text)
		}
	})
}
