package jwks_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwks"
)

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func encode(t testing.TB, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func public(kid string, k *ecdsa.PrivateKey) jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.Public(), KeyID: kid, Algorithm: "ES256", Use: "sig"}
}

// idp is an OIDC issuer over TLS whose keys change.
type idp struct {
	*httptest.Server
	body atomic.Pointer[[]byte]
	hits atomic.Int64
	down atomic.Bool
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	p := &idp{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /realm/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":"x","jwks_uri":%q}`, p.URL+"/keys")
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		p.hits.Add(1)
		if p.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = w.Write(*p.body.Load())
	})
	p.Server = httptest.NewTLSServer(mux)
	t.Cleanup(p.Close)
	return p
}

type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(c.ahead.Load()))
}
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func open(t *testing.T, uri string, client *http.Client, c *clock) *jwks.Set {
	t.Helper()
	s, err := jwks.New(jwks.Config{URI: uri, HTTP: client, Now: c.now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRotationIsSeenWithoutRestart(t *testing.T) {
	p, c := newIDP(t), &clock{}
	one, two := key(t), key(t)
	first, both := encode(t, public("1", one)), encode(t, public("1", one), public("2", two))
	for _, uri := range []string{p.URL + "/realm", p.URL + "/keys"} {
		p.body.Store(&first)
		p.hits.Store(0)
		s := open(t, uri, p.Client(), c)
		find := func(kid string) error {
			_, err := s.Find(t.Context(), kid)
			return err
		}
		if err := find("1"); err != nil {
			t.Fatal(err)
		}
		for range 100 { // a stranger's key ids do not make the broker ask
			if err := find("2"); !errors.Is(err, jwks.ErrNoKey) {
				t.Fatal(err)
			}
		}
		if n := p.hits.Load(); n != 1 {
			t.Errorf("%s was asked %d times", uri, n)
		}
		p.body.Store(&both)
		c.advance(jwks.DefaultRetry)
		if err := find("2"); err != nil {
			t.Errorf("the new key: %v", err)
		}
		p.body.Store(&first)
		c.advance(jwks.DefaultFresh)
		if err := find("2"); !errors.Is(err, jwks.ErrNoKey) {
			t.Errorf("the withdrawn key: %v", err)
		}
	}
}

func TestAnIssuerThatIsDown(t *testing.T) {
	p, c := newIDP(t), &clock{}
	first := encode(t, public("1", key(t)))
	p.body.Store(&first)
	s := open(t, p.URL+"/keys", p.Client(), c)
	if _, err := s.Find(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	p.down.Store(true)
	c.advance(jwks.DefaultStale - time.Second)
	if _, err := s.Find(t.Context(), "1"); err != nil {
		t.Errorf("within an hour: %v", err)
	}
	before := p.hits.Load()
	for range 50 {
		_, _ = s.Find(t.Context(), "1")
	}
	if n := p.hits.Load() - before; n > 1 {
		t.Errorf("asked %d times at once", n)
	}
	c.advance(time.Second)
	if _, err := s.Find(t.Context(), "1"); err == nil || errors.Is(err, jwks.ErrNoKey) {
		t.Errorf("after an hour: %v", err)
	}
	p.down.Store(false)
	c.advance(jwks.DefaultRetry)
	if _, err := s.Find(t.Context(), "1"); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// A caller that gives up does not take the keys from all others.
func TestACallerThatGoesAway(t *testing.T) {
	p, c := newIDP(t), &clock{}
	first := encode(t, public("1", key(t)))
	p.body.Store(&first)
	s := open(t, p.URL+"/keys", p.Client(), c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Find(ctx, "1"); err != nil {
		t.Error(err)
	}
}

func TestFiles(t *testing.T) {
	path, c, k := filepath.Join(t.TempDir(), "key.pem"), &clock{}, key(t)
	write := func(k crypto.PublicKey) {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(k.Public())
	for _, uri := range []string{path, "file://" + path} {
		s := open(t, uri, nil, c)
		found, err := s.Find(t.Context(), "whatever")
		if err != nil || len(found) != 1 || !k.PublicKey.Equal(found[0].Key) {
			t.Fatalf("%v: %v", found, err)
		}
	}
	s := open(t, path, nil, c)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(t.Context(), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestURIs(t *testing.T) {
	for uri, ok := range map[string]bool{
		"/etc/key.pem": true, "key.pem": true, "file:///etc/key.pem": true, "https://idp.example/realm": true, "http://127.0.0.1:8/x": true,
		"http://localhost/x": true, "http://[::1]/x": true,
		"": false, "http://idp.example": false, "ftp://idp.example": false, "file://host/x": false, "https://": false, "http://127.0.0.1.example": false,
	} {
		if _, err := jwks.New(jwks.Config{URI: uri}); (err == nil) != ok {
			t.Errorf("%q: %v", uri, err)
		}
	}
}

func TestParse(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	k := key(t)
	many := make([]jose.JSONWebKey, 101)
	for i := range many {
		many[i] = public("x", k)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		raw  []byte
		want int // keys; 0 means an error
	}{
		"one":            {encode(t, public("1", k)), 1},
		"ed25519":        {encode(t, jose.JSONWebKey{Key: ed.Public()}), 1},
		"private":        {encode(t, jose.JSONWebKey{Key: k}), 0},
		"symmetric":      {encode(t, jose.JSONWebKey{Key: []byte("0123456789abcdef")}), 0},
		"small rsa":      {encode(t, jose.JSONWebKey{Key: small.Public()}), 0},
		"for encryption": {encode(t, jose.JSONWebKey{Key: k.Public(), Use: "enc"}), 0},
		"wrong alg":      {encode(t, jose.JSONWebKey{Key: k.Public(), Algorithm: "RS256"}), 0},
		"alg none":       {encode(t, jose.JSONWebKey{Key: k.Public(), Algorithm: "none"}), 0},
		"too many":       {encode(t, many...), 0},
		"future key":     {[]byte(`{"keys":[{"kty":"PQ","x":"AA"},` + strings.TrimSuffix(strings.TrimPrefix(string(encode(t, public("1", k))), `{"keys":[`), "]}") + `]}`), 1},
		"empty":          {[]byte(`{"keys":[]}`), 0},
		"nothing":        {nil, 0},
		"html":           {[]byte(`<html>`), 0},
		"private pem":    {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0},
		"broken pem":     {[]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), 0},
		"half pem":       {[]byte("-----BEGIN PUBLIC KEY-----\nAAAA"), 0},
	} {
		got, err := jwks.Parse(c.raw)
		if len(got) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: %d keys, %v", name, len(got), err)
		}
	}
}

// Verify binds the algorithm to the key, not to what the header asks for.
func TestVerify(t *testing.T) {
	k, other := key(t), key(t)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: k}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(text, jwks.Accepted())
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := jwks.Verify(jws, []jose.JSONWebKey{public("", other), public("", k)}); err != nil || string(raw) != "payload" {
		t.Errorf("%q: %v", raw, err)
	}
	for name, keys := range map[string][]jose.JSONWebKey{
		"none": nil, "other": {public("", other)}, "another algorithm": {{Key: k.Public(), Algorithm: "ES384"}},
	} {
		if _, err := jwks.Verify(jws, keys); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encode(f, public("1", key(f))))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		keys, err := jwks.Parse(raw)
		if err != nil {
			return
		}
		for _, k := range keys {
			if !k.IsPublic() || len(jwks.Algorithms(k)) == 0 {
				t.Fatalf("accepted a key that verifies nothing: %v", k)
			}
		}
	})
}
