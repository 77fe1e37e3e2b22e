package server_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// oldGuest speaks a version before 0.4.0 by hand: it writes the hashed text as
// the specification has it, and knows no init-data (kbs-protocol 3.7).
type oldGuest struct {
	s       *stage
	sim     *snp.Simulator
	key     *jwe.PrivateKey
	jwk     string // with the members in the order that is hashed
	version string
	cookie  string
	nonce   string
}

func (s *stage) oldGuest(version, keyName string, sim *snp.Simulator) *oldGuest {
	s.t.Helper()
	key, err := jwe.Generate(keyName)
	if err != nil {
		s.t.Fatal(err)
	}
	k := key.JWK()
	g := &oldGuest{s: s, sim: sim, key: key, version: version}
	switch {
	case k.Kty == "EC":
		g.jwk = fmt.Sprintf(`{"alg":%q,"crv":%q,"kty":"EC","x":%q,"y":%q}`, k.Alg, k.Crv, k.X, k.Y)
	case version == "0.2.0":
		g.jwk = fmt.Sprintf(`{"alg":%q,"e":%q,"kty":"RSA","n":%q}`, k.Alg, k.E, k.N)
	default:
		g.jwk = fmt.Sprintf(`{"alg":"RSA1_5","e":%q,"kty":"RSA","n":%q}`, k.E, k.N)
	}
	a := s.send(http.MethodPost, s.guestURL+api.PathAuth, []byte(`{"version":"`+version+`","tee":"snp","extra-params":""}`))
	var c api.Challenge
	if err := json.Unmarshal(a.body, &c); a.status != http.StatusOK || err != nil {
		s.t.Fatalf("auth %s: %d %s", version, a.status, a.body)
	}
	g.nonce = c.Nonce
	g.cookie, _, _ = strings.Cut(a.header.Get("Set-Cookie"), ";")
	return g
}

// body is an honest answer in the form of a version, which need not be the
// guest's own.
func (g *oldGuest) body(version string) []byte {
	g.s.t.Helper()
	digest := sha512.Sum384([]byte(`{"nonce":"` + g.nonce + `","tee-pubkey":` + g.jwk + `}`))
	data, err := measure.NewReportData(digest[:])
	if err != nil {
		g.s.t.Fatal(err)
	}
	ev, err := g.sim.Evidence(g.s.t.Context(), data)
	if err != nil {
		g.s.t.Fatal(err)
	}
	evidence := []byte(ev.Data)
	if version == "0.1.0" {
		if evidence, err = json.Marshal(string(ev.Data)); err != nil {
			g.s.t.Fatal(err)
		}
	}
	return []byte(`{"tee-pubkey":` + g.jwk + `,"tee-evidence":` + string(evidence) + `}`)
}

func (g *oldGuest) attest(body []byte) answer {
	g.s.t.Helper()
	return g.s.send(http.MethodPost, g.s.guestURL+api.PathAttest, body, "Cookie: "+g.cookie)
}

// resource fetches with the session's cookie and opens the answer.
func (g *oldGuest) resource() string {
	t := g.s.t
	t.Helper()
	a := g.s.send(http.MethodGet, g.s.guestURL+api.PathResource+"/"+resourcePath, nil, "Cookie: "+g.cookie)
	var m api.JWE
	if err := json.Unmarshal(a.body, &m); a.status != http.StatusOK || err != nil {
		t.Fatalf("resource: %d %s", a.status, a.body)
	}
	if g.version == "0.2.0" {
		value, err := g.key.Open(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(value.Reveal())
	}
	return g.open01(m)
}

// open01 is what a guest of protocol 0.1 does with an answer.
func (g *oldGuest) open01(m api.JWE) string {
	t := g.s.t
	t.Helper()
	var h struct{ Alg, Enc string }
	if err := json.Unmarshal([]byte(m.Protected), &h); err != nil || h.Alg != "RSA1_5" || h.Enc != "A256GCM" || m.Tag != "" {
		t.Fatalf("%+v: %v", m, err)
	}
	text, err := g.key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text.Reveal())
	private, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	b64 := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	//nolint:staticcheck // what the old guest does
	cek, err := rsa.DecryptPKCS1v15(rand.Reader, private, b64(m.EncryptedKey))
	if err != nil {
		t.Fatal(err)
	}
	aesBlock, err := aes.NewCipher(cek)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(aesBlock)
	if err != nil {
		t.Fatal(err)
	}
	value, err := gcm.Open(nil, b64(m.IV), b64(m.Ciphertext), nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

// Guests of every version are served on one port, those of 0.1 only by name.
func TestOldGuests(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	for _, version := range []string{"0.1.0", "0.1.1"} {
		a := s.send(http.MethodPost, s.guestURL+api.PathAuth, []byte(`{"version":"`+version+`","tee":"snp","extra-params":""}`))
		if a.status != 401 || !strings.Contains(string(a.body), "KBS Client Protocol Version Mismatch") {
			t.Errorf("%s without the switch: %d %s", version, a.status, a.body)
		}
	}
	s.restartWith(func(c *config.Config) { c.AttestationService.InsecureProtocol01 = true })
	if !strings.Contains(fmt.Sprint(s.entries()), "attestation_service.insecure_protocol_0_1") {
		t.Error("the waiver is not in the log")
	}
	sim := guestWithoutInitData(t, "agent 1")
	for _, c := range []struct{ version, key string }{
		{"0.1.0", jwe.KeyRSA}, {"0.1.1", jwe.KeyRSA}, {"0.2.0", ""}, {"0.2.0", jwe.KeyRSA}, {"0.2.0", jwe.KeyP521},
	} {
		g := s.oldGuest(c.version, c.key, sim)
		if a := g.attest(g.body(c.version)); a.status != http.StatusOK {
			t.Errorf("%s with %q: %d %s; %+v", c.version, c.key, a.status, a.body, s.explain(a.info(t).Ticket))
			continue
		}
		if got := g.resource(); got != s.value {
			t.Errorf("%s with %q opened %q", c.version, c.key, got)
		}
	}
	// The switch is looked at again when something is released.
	g := s.oldGuest("0.1.1", jwe.KeyRSA, sim)
	if a := g.attest(g.body("0.1.1")); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s.restartWith(func(c *config.Config) { c.AttestationService.InsecureProtocol01 = false })
	a := s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, "Cookie: "+g.cookie)
	if e := a.info(t); a.status != 400 || e.Type != api.ErrorTypePrefix+"JweError" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// guestWithoutInitData is what an old guest is: its host data is zero.
func guestWithoutInitData(t testing.TB, image string) *snp.Simulator {
	t.Helper()
	return guestOf(t, "lab", snp.Launch{Image: []byte(image), CommandLine: "console=hvc0"})
}

// No version's answer passes for another's, and no key for a version's that has
// none such.
func TestVersionsAreNotConfused(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	s.restartWith(func(c *config.Config) { c.AttestationService.InsecureProtocol01 = true })
	sim, old := guest(t, "lab", "agent 1"), guestWithoutInitData(t, "agent 1")
	rsaKey, err := jwe.Generate(jwe.KeyRSA)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		do   func() answer
		code fault.Code
	}{
		"0.4.0 answered as 0.2.0": {func() answer {
			h, g := s.auth(sim), s.oldGuest("0.2.0", "", old)
			g.cookie, g.nonce = h.cookie, h.nonce
			return g.attest(g.body("0.2.0"))
		}, fault.InvalidRequest},
		"0.2.0 answered as 0.4.0": {func() answer {
			g, h := s.oldGuest("0.2.0", "", old), s.auth(sim)
			h.cookie = g.cookie
			return h.attest(h.message(g.nonce))
		}, fault.InvalidRequest},
		"0.4.0 with evidence of 0.2.0": {func() answer {
			h, g := s.auth(sim), s.oldGuest("0.2.0", "", old)
			g.nonce = h.nonce
			var body struct {
				Evidence json.RawMessage `json:"tee-evidence"`
			}
			if err := json.Unmarshal(g.body("0.2.0"), &body); err != nil {
				t.Fatal(err)
			}
			h.key = g.key
			m := h.message(h.nonce)
			m.InitData, m.TEEEvidence.PrimaryEvidence = nil, body.Evidence
			return h.attest(m)
		}, fault.BindingMismatch},
		"0.2.0 with evidence of 0.4.0": {func() answer {
			g, h := s.oldGuest("0.2.0", "", old), s.auth(sim)
			h.key = g.key
			m := h.message(g.nonce)
			return g.attest([]byte(`{"tee-pubkey":` + g.jwk + `,"tee-evidence":` + string(m.TEEEvidence.PrimaryEvidence) + `}`))
		}, fault.BindingMismatch},
		"0.1.1 answered as 0.1.0": {func() answer { g := s.oldGuest("0.1.1", jwe.KeyRSA, old); return g.attest(g.body("0.1.0")) }, fault.EvidenceInvalid},
		"0.1.0 answered as 0.1.1": {func() answer { g := s.oldGuest("0.1.0", jwe.KeyRSA, old); return g.attest(g.body("0.1.1")) }, fault.InvalidRequest},
		"0.1.1 with a curve":      {func() answer { g := s.oldGuest("0.1.1", "", old); return g.attest(g.body("0.1.1")) }, fault.InvalidRequest},
		"0.2.0 with another's cookie": {func() answer {
			g, other := s.oldGuest("0.2.0", "", old), s.oldGuest("0.2.0", "", old)
			g.cookie = other.cookie
			return g.attest(g.body("0.2.0"))
		}, fault.BindingMismatch},
		"0.4.0 with RSA1_5": {func() answer {
			h := s.auth(sim)
			m := h.message(h.nonce)
			m.RuntimeData.TEEPubKey = rsaKey.JWK()
			m.RuntimeData.TEEPubKey.Alg = jwe.AlgRSA15
			return h.attest(m)
		}, fault.InvalidRequest},
	} {
		a := c.do()
		if e := a.info(t); a.status != c.code.Status() || e.Code != string(c.code) {
			t.Errorf("%s: %d %s; %+v", name, a.status, a.body, s.explain(e.Ticket))
		}
	}
}

// Keys that nothing can be encrypted to are refused before they get a token.
func TestBadGuestKeys(t *testing.T) {
	s := newStage(t)
	sim := guest(t, "lab", "agent 1")
	b64 := func(n int) string { return base64.RawURLEncoding.EncodeToString(make([]byte, n)) }
	for name, k := range map[string]api.JWK{
		"off the curve":      {Kty: "EC", Crv: "P-256", Alg: jwe.AlgECDH, X: b64(32), Y: b64(32)},
		"another curve":      {Kty: "EC", Crv: "secp256k1", Alg: jwe.AlgECDH, X: b64(32), Y: b64(32)},
		"tiny RSA":           {Kty: "RSA", Alg: jwe.AlgRSA, N: "AQAB", E: "AQAB"},
		"RSA exponent":       {Kty: "RSA", Alg: jwe.AlgRSA, N: b64(256), E: "Aw"},
		"short ML-KEM":       {Kty: "AKP", Alg: jwe.AlgMLKEM, Pub: b64(1183)},
		"hybrid, low order":  {Kty: "AKP", Alg: jwe.AlgHybrid, Pub: b64(1184 + 32)},
		"hybrid, short":      {Kty: "AKP", Alg: jwe.AlgHybrid, Pub: b64(1184)},
		"unknown type":       {Kty: "OKP", Alg: jwe.AlgECDH, X: b64(32)},
		"unknown alg":        {Kty: "EC", Crv: "P-256", Alg: "none", X: b64(32), Y: b64(32)},
		"nothing":            {},
		"no base64 in there": {Kty: "EC", Crv: "P-256", Alg: jwe.AlgECDH, X: "*", Y: "*"},
	} {
		h := s.auth(sim)
		m := h.message(h.nonce)
		m.RuntimeData.TEEPubKey = k
		a := h.attest(m)
		if e := a.info(t); a.status != 400 || e.Code != string(fault.InvalidRequest) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}
