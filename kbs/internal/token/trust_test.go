package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwks"
)

// trusting is a replica that trusts others as the configuration says.
func (s *stage) trusting(c TrustConfig) replica {
	s.t.Helper()
	c.Now, c.Logger = s.clock.now, s.cfg.Logger
	trust, err := NewTrust(s.t.Context(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	r := s.replica()
	r.Verifier = NewVerifier(r.Issuer, trust)
	return r
}

// claimsText is what a foreign issuer says; extra members begin with a comma.
func claimsText(exp time.Time, extra string) string {
	return fmt.Sprintf(`{"iss":"them","exp":%d,"submods":{"cpu0":{"ear.status":"affirming"}}%s}`, exp.Unix(), extra)
}

// jwt signs like somebody else would.
func jwt(t testing.TB, alg jose.SignatureAlgorithm, key any, payload string, headers map[jose.HeaderKey]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, &jose.SignerOptions{ExtraHeaders: headers})
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

func kid(id string) map[jose.HeaderKey]any { return map[jose.HeaderKey]any{"kid": id} }

// rawToken joins parts that no library would.
func rawToken(header, payload string, signature []byte) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(payload)) + "." + enc.EncodeToString(signature)
}

func keySetFile(t testing.TB, path string, keys ...jose.JSONWebKey) string {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	if path == "" {
		path = filepath.Join(t.TempDir(), "jwks.json")
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every algorithm of the field's issuers, by a library that is not ours.
func TestForeignIssuers(t *testing.T) {
	s := newStage(t)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	type pair struct {
		alg             jose.SignatureAlgorithm
		private, public any
	}
	var set []jose.JSONWebKey
	pairs := []pair{
		{jose.ES256, p256, p256.Public()}, {jose.ES384, p384, p384.Public()}, {jose.ES512, p521, p521.Public()}, {jose.EdDSA, ed, ed.Public()},
	}
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512} {
		pairs = append(pairs, pair{alg, rsa2048, rsa2048.Public()})
	}
	for _, p := range pairs {
		set = append(set, jose.JSONWebKey{Key: p.public, KeyID: string(p.alg), Algorithm: string(p.alg)})
	}
	r := s.trusting(TrustConfig{KeySets: []string{keySetFile(t, "", set...)}})
	payload := claimsText(start.Add(time.Minute), "")
	for _, p := range pairs {
		c, err := r.Verify(t.Context(), jwt(t, p.alg, p.private, payload, kid(string(p.alg))))
		if err != nil || !c.Foreign || c.Issuer != "them" || c.Submods[CPU].Status != Affirming || !strings.HasPrefix(c.ID, "foreign-") {
			t.Errorf("%s: %+v, %v", p.alg, c, err)
		}
		for _, q := range pairs {
			if p.alg != q.alg && r.accepts(jwt(t, p.alg, p.private, payload, kid(string(q.alg)))) {
				t.Errorf("%s was taken for %s", p.alg, q.alg)
			}
		}
	}
	if !r.accepts(r.issue("own")) {
		t.Error("our own token is refused")
	}
}

func TestForeignForgeries(t *testing.T) {
	s := newStage(t)
	them, thief := newP256(t), newP256(t)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := jose.JSONWebKey{Key: them.Public(), KeyID: "1", Algorithm: "ES256"}
	unnamed := jose.JSONWebKey{Key: thief.Public(), Algorithm: "ES256"}             // fits no header
	noAlg := jose.JSONWebKey{Key: thief.Public(), KeyID: "noalg"}                   // must carry alg
	misfit := jose.JSONWebKey{Key: p384.Public(), KeyID: "384", Algorithm: "ES256"} // wrong curve
	r := s.trusting(TrustConfig{KeySets: []string{keySetFile(t, "", public, unnamed, noAlg, misfit)}})
	good := claimsText(start.Add(time.Minute), "")
	token := jwt(t, jose.ES256, them, good, kid("1"))
	if !r.accepts(token) {
		t.Fatal("the baseline is refused")
	}
	parts := strings.Split(token, ".")
	spki, err := x509.MarshalPKIXPublicKey(them.Public())
	if err != nil {
		t.Fatal(err)
	}
	own := r.signer()
	header := func(k *ecdsa.PrivateKey) jose.JSONWebKey { return jose.JSONWebKey{Key: k.Public(), Algorithm: "ES256"} }
	for name, text := range map[string]string{
		"alg none":             rawToken(`{"alg":"none","kid":"1"}`, good, nil),
		"alg None":             rawToken(`{"alg":"None","kid":"1"}`, good, nil),
		"no alg":               rawToken(`{"kid":"1"}`, good, nil),
		"hmac, public key":     jwt(t, jose.HS256, spki, good, kid("1")),
		"another key":          jwt(t, jose.ES256, thief, good, kid("1")),
		"wrong kid":            jwt(t, jose.ES256, them, good, kid("2")),
		"no kid":               jwt(t, jose.ES256, them, good, nil),
		"kid of our own":       jwt(t, jose.ES256, them, good, kid(own.id)),
		"key without id":       jwt(t, jose.ES256, thief, good, kid("x")),
		"key without alg":      jwt(t, jose.ES256, thief, good, kid("noalg")),
		"wrong curve":          jwt(t, jose.ES384, p384, good, kid("384")),
		"jwk in the header":    jwt(t, jose.ES256, thief, good, map[jose.HeaderKey]any{"jwk": header(thief)}),
		"jwk beside a kid":     jwt(t, jose.ES256, thief, good, map[jose.HeaderKey]any{"jwk": header(thief), "kid": "1"}),
		"jwk and our kid":      jwt(t, jose.ES256, thief, good, map[jose.HeaderKey]any{"jwk": header(thief), "kid": own.id}),
		"expired":              jwt(t, jose.ES256, them, claimsText(start.Add(-leeway), ""), kid("1")),
		"no expiry":            jwt(t, jose.ES256, them, `{"iss":"them"}`, kid("1")),
		"expiry of text":       jwt(t, jose.ES256, them, `{"exp":"9999999999"}`, kid("1")),
		"not valid yet":        jwt(t, jose.ES256, them, claimsText(start.Add(time.Minute), fmt.Sprintf(`,"nbf":%d`, start.Add(leeway+time.Second).Unix())), kid("1")),
		"two faces":            jwt(t, jose.ES256, them, claimsText(start.Add(time.Minute), `,"submods":{}`), kid("1")),
		"payload changed":      parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(good+" ")) + "." + parts[2],
		"signature cut":        parts[0] + "." + parts[1] + "." + parts[2][:20],
		"padded":               token + "==",
		"no object":            jwt(t, jose.ES256, them, `[]`, kid("1")),
		"critical extension":   jwt(t, jose.ES256, them, good, map[jose.HeaderKey]any{"kid": "1", "crit": []string{"exp"}}),
		"unencoded payload":    rawToken(`{"alg":"ES256","kid":"1","b64":false,"crit":["b64"]}`, good, make([]byte, 64)),
		"two algs":             rawToken(`{"alg":"none","alg":"ES256","kid":"1"}`, good, nil),
		"zero signature":       rawToken(`{"alg":"ES256","kid":"1"}`, good, make([]byte, 64)),
		"signature of der":     rawToken(`{"alg":"ES256","kid":"1"}`, good, make([]byte, 71)),
		"our payload, our kid": jwt(t, jose.ES256, them, fmt.Sprintf(`{"iss":"test","exp":%d}`, start.Unix()+60), kid(own.id)),
	} {
		if r.accepts(text) {
			t.Errorf("%s: accepted", name)
		}
	}
}

// An issuer that takes a key back ends what it signed, also what was verified
// before.
func TestWithdrawnKey(t *testing.T) {
	s := newStage(t)
	them, next := newP256(t), newP256(t)
	path := keySetFile(t, "", jose.JSONWebKey{Key: them.Public(), KeyID: "1", Algorithm: "ES256"})
	r := s.trusting(TrustConfig{KeySets: []string{"file://" + path}})
	token := jwt(t, jose.ES256, them, claimsText(start.Add(time.Hour), ""), kid("1"))
	if !r.accepts(token) {
		t.Fatal("refused")
	}
	// The same id, another key: a swapped set.
	keySetFile(t, path, jose.JSONWebKey{Key: next.Public(), KeyID: "1", Algorithm: "ES256"})
	s.clock.advance(jwks.DefaultFresh)
	if r.accepts(token) {
		t.Error("a withdrawn key is trusted")
	}
	if !r.accepts(jwt(t, jose.ES256, next, claimsText(start.Add(time.Hour), ""), kid("1"))) {
		t.Error("the new key is not")
	}
}

// ca certifies leaves like the certificate authority of another service.
type ca struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newCA(t testing.TB) ca {
	t.Helper()
	k := newP256(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "them"}, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return ca{k, certify(t, tmpl, tmpl, k.Public(), k)}
}

func certify(t testing.TB, tmpl, parent *x509.Certificate, public any, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a ca) leaf(t testing.TB, public any, until time.Time) *x509.Certificate {
	t.Helper()
	return certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: start.Add(-time.Hour), NotAfter: until,
	}, a.cert, public, a.key)
}

func certFile(t testing.TB, path string, certs ...*x509.Certificate) string {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "ca.pem")
	}
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// endorsed signs with a header that brings key and chain, encoded by enc.
func endorsed(t testing.TB, k *ecdsa.PrivateKey, enc *base64.Encoding, payload string, chain ...*x509.Certificate) string {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKey{Key: k.Public(), Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(raw, &members); err != nil {
		t.Fatal(err)
	}
	x5c := []string{}
	for _, c := range chain {
		x5c = append(x5c, enc.EncodeToString(c.Raw))
	}
	members["x5c"] = x5c
	return jwt(t, jose.ES256, k, payload, map[jose.HeaderKey]any{"jwk": members})
}

func TestEndorsedKeys(t *testing.T) {
	s := newStage(t)
	them, stranger := newCA(t), newCA(t)
	k, other := newP256(t), newP256(t)
	path := certFile(t, "", them.cert)
	r := s.trusting(TrustConfig{Certificates: []string{path}})
	good := claimsText(start.Add(time.Hour), "")
	std, end := base64.StdEncoding, start.Add(24*time.Hour)
	leaf := them.leaf(t, k.Public(), end)
	if !r.accepts(endorsed(t, k, std, good, leaf)) || !r.accepts(endorsed(t, k, std, good, leaf, them.cert)) || !r.accepts(endorsed(t, k, base64.RawURLEncoding, good, leaf)) {
		t.Fatal("an endorsed key is refused")
	}
	many := make([]*x509.Certificate, maxChain+1)
	for i := range many {
		many[i] = leaf
	}
	for name, text := range map[string]string{
		"no certificate":        endorsed(t, k, std, good),
		"stranger's authority":  endorsed(t, k, std, good, stranger.leaf(t, k.Public(), end), stranger.cert),
		"another key's":         endorsed(t, k, std, good, them.leaf(t, other.Public(), end)),
		"the authority itself":  endorsed(t, k, std, good, them.cert),
		"ended":                 endorsed(t, k, std, good, them.leaf(t, k.Public(), start.Add(-time.Second))),
		"a leaf's leaf":         endorsed(t, other, std, good, ca{k, leaf}.leaf(t, other.Public(), end), leaf),
		"too many certificates": endorsed(t, k, std, good, many...),
	} {
		if r.accepts(text) {
			t.Errorf("%s: accepted", name)
		}
	}
	// The files are watched: a broken one changes nothing, a new one everything.
	token := endorsed(t, k, std, good, leaf)
	if err := os.WriteFile(path, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.clock.advance(refreshEvery)
	if !r.accepts(token) {
		t.Error("a broken file took effect")
	}
	certFile(t, path, stranger.cert)
	s.clock.advance(refreshEvery)
	if r.accepts(token) {
		t.Error("an authority that is no longer trusted endorses a token seen before")
	}
	if !r.accepts(endorsed(t, k, std, good, stranger.leaf(t, k.Public(), end))) {
		t.Error("the new authority does not endorse")
	}
}

// A broker accepts the tokens of another by its authority alone, across the
// other's rotation.
func TestAnotherBrokersTokens(t *testing.T) {
	a, b := newStage(t), newStage(t)
	issuer := a.replica()
	signer := issuer.signer()
	r := b.trusting(TrustConfig{Certificates: []string{certFile(t, "", signer.chain[len(signer.chain)-1])}})
	if c, err := r.Verify(t.Context(), issuer.issue("x")); err != nil || !c.Foreign || c.ID == "x" {
		t.Errorf("%+v, %v", c, err)
	}
	issuer.rotate(Rotation{Revoke: true})
	if !r.accepts(issuer.issue("y")) {
		t.Error("the rotation broke the trust")
	}
}

func TestInsecureHeaderKey(t *testing.T) {
	r := newStage(t).trusting(TrustConfig{InsecureHeaderJWK: true})
	k, other := newP256(t), newP256(t)
	good := claimsText(start.Add(time.Hour), "")
	with := func(signer, shown *ecdsa.PrivateKey) string {
		return jwt(t, jose.ES256, signer, good, map[jose.HeaderKey]any{"jwk": jose.JSONWebKey{Key: shown.Public(), Algorithm: "ES256"}})
	}
	if !r.accepts(with(k, k)) {
		t.Error("refused")
	}
	if r.accepts(with(k, other)) {
		t.Error("the signature was not checked")
	}
	if r.accepts(jwt(t, jose.ES256, k, good, map[jose.HeaderKey]any{"kid": r.signer().id, "jwk": jose.JSONWebKey{Key: k.Public(), Algorithm: "ES256"}})) {
		t.Error("a stranger's key passed for our own")
	}
}

func TestTEEKeyPointers(t *testing.T) {
	s := newStage(t)
	them := newP256(t)
	set := keySetFile(t, "", jose.JSONWebKey{Key: them.Public(), KeyID: "1", Algorithm: "ES256"})
	r := s.trusting(TrustConfig{KeySets: []string{set}, TEEKeys: []string{"/deep/0/a~1b"}})
	key := func(x string) string {
		return `{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"` + x + `","y":"y"}`
	}
	for name, c := range map[string]struct{ extra, want string }{
		"configured":          {`,"tee-pubkey":` + key("last") + `,"deep":[{"a/b":` + key("first") + `}]`, "first"},
		"ITA":                 {`,"tdx":{"attester_runtime_data":{"tee-pubkey":` + key("rt") + `}},"tee-pubkey":` + key("last"), "rt"},
		"ITA user data":       {`,"tdx":{"attester_user_data":{"tee-pubkey":` + key("ud") + `}}`, "ud"},
		"customized":          {`,"customized_claims":{"runtime_data":{"tee-pubkey":` + key("cc") + `}}`, "cc"},
		"bare":                {`,"tee-pubkey":` + key("last"), "last"},
		"none":                {``, ""},
		"null":                {`,"tee-pubkey":null`, ""},
		"not a key":           {`,"tee-pubkey":"x"`, ""},
		"the first one wrong": {`,"deep":[{"a/b":5}],"tee-pubkey":` + key("last"), ""},
	} {
		c2, err := r.Verify(t.Context(), jwt(t, jose.ES256, them, claimsText(start.Add(time.Hour), c.extra), kid("1")))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := c2.TEEKey(); got.X != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Issuers that are down when a broker starts do not stop it; files that are
// missing do.
func TestTrustAtStart(t *testing.T) {
	s := newStage(t)
	for name, c := range map[string]TrustConfig{
		"no set":      {KeySets: []string{"/does/not/exist"}},
		"plain http":  {KeySets: []string{"http://issuer.example/jwks"}},
		"no cert":     {Certificates: []string{"/does/not/exist"}},
		"empty certs": {Certificates: []string{certFile(t, "")}},
		"not a set":   {KeySets: []string{certFile(t, "")}},
	} {
		c.Now, c.Logger = s.clock.now, s.cfg.Logger
		if _, err := NewTrust(t.Context(), c); err == nil {
			t.Errorf("%s: started", name)
		}
	}
	r := s.trusting(TrustConfig{KeySets: []string{"http://127.0.0.1:1/jwks"}})
	if r.accepts(jwt(t, jose.ES256, newP256(t), claimsText(start.Add(time.Hour), ""), kid("1"))) {
		t.Error("accepted")
	}
	if !r.accepts(r.issue("own")) {
		t.Error("our own token is refused while somebody else is down")
	}
}

func TestCacheIsBounded(t *testing.T) {
	s := newStage(t)
	r := s.replica()
	text := r.issue("keep")
	for i := range cacheTokens + 50 {
		r.good.put(&verdict{text: [32]byte{byte(i), byte(i >> 8), 1}, claims: Claims{Raw: make(json.RawMessage, 100), Expires: start.Add(time.Hour)}})
		if i%500 == 0 && !r.accepts(text) {
			t.Fatal("refused")
		}
	}
	if n := r.good.used.Len(); n != cacheTokens || len(r.good.by) != n {
		t.Errorf("%d tokens, %d keys", n, len(r.good.by))
	}
	for i := range 50 {
		r.good.put(&verdict{text: [32]byte{byte(i), 2}, claims: Claims{Raw: make(json.RawMessage, cacheBytes/8)}})
	}
	if r.good.bytes > cacheBytes || r.good.used.Len() > 8 {
		t.Errorf("%d bytes", r.good.bytes)
	}
	r.good.put(&verdict{text: [32]byte{3}, claims: Claims{Raw: make(json.RawMessage, cacheBytes)}})
	if r.good.used.Len() < 2 {
		t.Error("one token crowded out the others")
	}
	// What was made of a token is kept with it, and goes with it.
	parsed := 0
	parse := func(json.RawMessage) (any, error) { parsed++; return parsed, nil }
	for range 3 {
		c, err := r.Verify(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := c.Parsed(parse); v != 1 || err != nil {
			t.Errorf("%v, %v", v, err)
		}
	}
	s.clock.advance(lifetime + leeway)
	if r.accepts(text) {
		t.Error("the cache outlived the token")
	}
}

// FuzzForeign: whatever the text, no panic, and nothing is accepted that was
// not signed.
func FuzzForeign(f *testing.F) {
	s := newStage(f)
	them := newP256(f)
	set := keySetFile(f, "", jose.JSONWebKey{Key: them.Public(), KeyID: "1", Algorithm: "ES256"})
	auth := newCA(f)
	r := s.trusting(TrustConfig{KeySets: []string{set}, Certificates: []string{certFile(f, "", auth.cert)}})
	payload := claimsText(start.Add(time.Hour), "")
	good := []string{
		jwt(f, jose.ES256, them, payload, kid("1")),
		endorsed(f, them, base64.StdEncoding, payload, auth.leaf(f, them.Public(), start.Add(24*time.Hour))),
	}
	for _, text := range good {
		f.Add(text)
	}
	f.Add(rawToken(`{"alg":"ES256","jwk":{"kty":"EC","crv":"P-256","x":"AA","y":"AA","x5c":["AA"]}}`, "{}", make([]byte, 64)))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := r.Verify(t.Context(), text)
		if err == nil && string(c.Raw) != payload {
			t.Fatalf("accepted %q", text)
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("a stranger's text is a failure of ours: %v", err)
		}
	})
}

// FuzzPointer: a pointer into foreign JSON finds something or nothing.
func FuzzPointer(f *testing.F) {
	f.Add([]byte(`{"a":[{"b/c":1}]}`), "/a/0/b~1c")
	f.Add([]byte(`[]`), "/-1")
	f.Fuzz(func(t *testing.T, raw []byte, pointer string) {
		if got, ok := at(raw, pointer); ok && json.Valid(raw) && !json.Valid(got) {
			t.Fatalf("%q at %q is %q", raw, pointer, got)
		}
	})
}
