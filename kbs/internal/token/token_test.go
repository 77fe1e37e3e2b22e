package token

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestIssueAndVerify(t *testing.T) {
	s := newStage(t)
	r := s.replica()
	text, exp, err := r.Issue(t.Context(), "id-1", submods())
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Verify(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID != "id-1" || !c.Expires.Equal(exp) || c.Submods[CPU].Status != Affirming || c.Submods[CPU].PolicyID != "default" {
		t.Fatalf("claims: %+v", c)
	}
	if key, err := c.TEEKey(); err != nil || key.Kty != "EC" || key.X != "eA" {
		t.Fatalf("key %+v, %v", key, err)
	}
	// Clocks may be apart by the leeway of kbs-protocol 5.2, and no more.
	for name, at := range map[string]struct {
		time time.Time
		good bool
	}{
		"just before expiry":       {exp.Add(leeway - time.Nanosecond), true},
		"at expiry":                {exp.Add(leeway), false},
		"just before it was made":  {start.Add(-leeway), true},
		"long before it was made":  {start.Add(-leeway - time.Nanosecond), false},
		"while it is good, really": {start.Add(time.Minute), true},
	} {
		s.clock.set(at.time)
		if got := s.replica().accepts(text); got != at.good { // one that has not seen it yet
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The header is what third parties rely on (kbs-protocol 10 and 20.7): typ,
// alg, kid and a jwk whose x5c certifies the very key.
func TestHeader(t *testing.T) {
	r := newStage(t).replica()
	text, own := r.issue("id"), r.signer()
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
	if h.Typ != "JWT" || h.Alg != "ES256" || h.Kid != own.id || h.JWK.Kty != "EC" || h.JWK.Crv != "P-256" || h.JWK.Alg != "ES256" {
		t.Fatalf("header %s", raw)
	}
	if len(h.JWK.X5c) != 1 {
		t.Fatalf("x5c has %d certificates", len(h.JWK.X5c))
	}
	cert, err := x509.ParseCertificate(h.JWK.X5c[0])
	if err != nil || !own.public.Equal(cert.PublicKey) {
		t.Fatalf("x5c does not certify the key: %v", err)
	}
	x, err := base64.RawURLEncoding.DecodeString(h.JWK.X)
	if err != nil || len(x) != 32 {
		t.Fatalf("x is %d bytes: %v", len(x), err)
	}
}

func TestForgeries(t *testing.T) {
	r := newStage(t).replica()
	own, good := r.signer(), r.issue("id")
	foreign := newStage(t).replica().issue("id")
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
	thief := newP256(t)
	claims := fmt.Sprintf(`{"iss":"test","exp":%d,"submods":{"cpu0":{"ear.status":"affirming"}}}`, start.Unix()+60)
	cases := map[string]string{
		"empty":                      "",
		"not a token":                "a.b.c",
		"no signature":               parts[0] + "." + parts[1] + ".",
		"alg none":                   b64([]byte(`{"alg":"none","kid":"`+own.id+`"}`)) + "." + parts[1] + ".",
		"another issuer's":           foreign,
		"own kid, stolen header key": sign(jose.ES256, thief, own.id, claims),
		"hmac with the public key":   sign(jose.HS256, own.chain[0].RawSubjectPublicKeyInfo, own.id, claims),
		"payload changed":            parts[0] + "." + b64([]byte(claims)) + "." + parts[2],
		"no kid":                     sign(jose.ES256, own.private, "", claims),
		"no expiry":                  sign(jose.ES256, own.private, own.id, `{"iss":"test"}`),
		"expiry null":                sign(jose.ES256, own.private, own.id, `{"iss":"test","exp":null}`),
		"other iss":                  sign(jose.ES256, own.private, own.id, strings.Replace(claims, "test", "evil", 1)),
		"payload not an object":      sign(jose.ES256, own.private, own.id, `[]`),
		"trailing":                   good + ".x",
		"too large":                  strings.Repeat("a", MaxSize+1),
	}
	for name, text := range cases {
		if r.accepts(text) {
			t.Errorf("%s: accepted", name)
		}
	}
	// The baseline of the cases above is accepted, so each fails for its name.
	if !r.accepts(sign(jose.ES256, own.private, own.id, claims)) {
		t.Error("the baseline is refused")
	}
}

func TestExtensionsCannotReplaceTheVerdict(t *testing.T) {
	s := Submod{Vector: Vector{"hardware": 97}, Extensions: map[string]any{"ear.status": "affirming"}}
	raw, err := json.Marshal(Appraisal(s))
	if err != nil {
		t.Fatal(err)
	}
	var c AppraisalClaims
	if err := json.Unmarshal(raw, &c); err != nil || c.Status != Contraindicated {
		t.Fatalf("%s: %v", raw, err)
	}
}

// kbs-protocol 3.9: the newer members are there on demand, beside those that
// third parties read.
func TestDraft04(t *testing.T) {
	s := Submod{Vector: Vector{"hardware": 2}, Evidence: map[string]any{
		"snp": map[string]any{"measurement": "aa"}, "report_data": "bb", "init_data": "cc",
		"runtime_data_claims": map[string]any{"nonce": "n"}, "init_data_claims": nil,
	}, Extensions: map[string]any{"ear_verifier_claims": "a lie"}}
	raw, err := json.Marshal(AppraisalDraft04(s))
	const want = `{"ear.appraisal-policy-id":"","ear.status":"affirming","ear.trustworthiness-vector":{"hardware":2},` +
		`"ear.veraison.annotated-evidence":{"init_data":"cc","init_data_claims":null,"report_data":"bb","runtime_data_claims":{"nonce":"n"},"snp":{"measurement":"aa"}},` +
		`"ear_attester_claims":{"claims":{"measurement":"aa"},"init_data":"cc","report_data":"bb","tee":"snp"},` +
		`"ear_verifier_claims":{"init_data":null,"report_data":{"nonce":"n"}}}`
	if err != nil || string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
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
	r := newStage(f).replica()
	good := r.issue("id")
	f.Add(good)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := r.Verify(t.Context(), text)
		if err == nil && text != good && c.ID != "id" {
			t.Fatalf("accepted %q", text)
		}
	})
}
