package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func publicPEM(t testing.TB, pub any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func quote(t testing.TB, s string) string {
	t.Helper()
	b, err := json.Marshal(s)
	must(t, err)
	return string(b)
}

func withDefault(reqs string) string { return `{"default":[` + reqs + `],"transports":{}}` }

func TestParsePolicyAccepts(t *testing.T) {
	key := publicPEM(t, newKey(t).Public())
	for name, doc := range map[string]string{
		"reject":          withDefault(`{"type":"reject"}`),
		"accept":          withDefault(`{"type":"insecureAcceptAnything"}`),
		"key path":        withDefault(`{"type":"sigstoreSigned","keyPath":"kbs:///default/k/1"}`),
		"key in base64":   withDefault(`{"type":"sigstoreSigned","keyData":"` + base64.StdEncoding.EncodeToString(key) + `"}`),
		"key in PEM":      withDefault(`{"type":"sigstoreSigned","keyData":` + quote(t, string(key)) + `}`),
		"identity":        withDefault(`{"type":"sigstoreSigned","keyPath":"k","signedIdentity":{"type":"exactRepository","dockerRepository":"ghcr.io/a/b"}}`),
		"remap":           withDefault(`{"type":"sigstoreSigned","keyPath":"k","signedIdentity":{"type":"remapIdentity","prefix":"mirror.local/a","signedPrefix":"ghcr.io/a"}}`),
		"scopes":          `{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":"reject"}],"ghcr.io":[{"type":"reject"}],"*.example.com":[{"type":"reject"}],"localhost:5000/a:v1":[{"type":"reject"}],"[::1]:5000":[{"type":"reject"}],"docker.io/library/alpine:3":[{"type":"reject"}],"docker.io/bitnami":[{"type":"reject"}],"*.com":[{"type":"reject"}],"ghcr.io/a/b@sha256:` + strings.Repeat("0", 64) + `":[{"type":"reject"}]}}}`,
		"other transport": `{"default":[{"type":"reject"}],"transports":{"docker-daemon":{"":[{"type":"insecureAcceptAnything"}]}}}`,
	} {
		if _, err := ParsePolicy([]byte(doc)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParsePolicyRefuses(t *testing.T) {
	scope := func(s string) string {
		return `{"default":[{"type":"reject"}],"transports":{"docker":{"` + s + `":[{"type":"reject"}]}}}`
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	key := publicPEM(t, newKey(t).Public())
	keyData := func(b []byte) string {
		return withDefault(`{"type":"sigstoreSigned","keyData":` + quote(t, string(b)) + `}`)
	}
	tests := []struct{ name, doc, want string }{
		{"empty", ``, ""},
		{"no default", `{"transports":{}}`, "default"},
		{"no transports", `{"default":[{"type":"reject"}]}`, "transports"},
		{"empty list", `{"default":[],"transports":{}}`, "empty"},
		{"null list", `{"default":null,"transports":{}}`, "empty"},
		{"empty list of a scope", `{"default":[{"type":"reject"}],"transports":{"docker":{"ghcr.io":[]}}}`, "empty"},
		{"empty list of another transport", `{"default":[{"type":"reject"}],"transports":{"oci":{"":[]}}}`, "empty"},
		{"unknown type", withDefault(`{"type":"acceptEverything"}`), "not supported"},
		{"signedBy with another type", withDefault(`{"type":"signedBy","keyType":"X509Certificates","keyPath":"k"}`), "not supported"},
		{"signedBy without a key", withDefault(`{"type":"signedBy","keyType":"GPGKeys"}`), "exactly one"},
		{"signedBy with several data", withDefault(`{"type":"signedBy","keyType":"GPGKeys","keyDatas":["AAAA"]}`), "exactly one"},
		{"signedBy with a bad key", withDefault(`{"type":"signedBy","keyType":"GPGKeys","keyData":"AAAA"}`), "keyring"},
		{"no type", withDefault(`{}`), "not supported"},
		{"type in capitals", withDefault(`{"Type":"insecureAcceptAnything"}`), "not supported"},
		{"unknown member", withDefault(`{"type":"reject","because":"x"}`), "unknown member"},
		{"unknown member above", `{"default":[{"type":"reject"}],"transports":{},"x":1}`, "unknown member"},
		{"duplicate scope", `{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{"type":"reject"}],"a":[{"type":"insecureAcceptAnything"}]}}}`, "duplicate"},
		{"no key", withDefault(`{"type":"sigstoreSigned"}`), "exactly one"},
		{"two keys", withDefault(`{"type":"sigstoreSigned","keyPath":"a","keyData":` + quote(t, string(key)) + `}`), "exactly one"},
		{"empty path", withDefault(`{"type":"sigstoreSigned","keyPath":""}`), "exactly one"},
		{"keyless without an identity", withDefault(`{"type":"sigstoreSigned","fulcio":{}}`), "fulcio needs"},
		{"keyData of nothing", withDefault(`{"type":"sigstoreSigned","keyData":"AAAA"}`), "PEM"},
		{"small RSA", keyData(publicPEM(t, small.Public())), "bits"},
		{"P-224", keyData(publicPEM(t, p224.Public())), "P-224"},
		{"no key of several", withDefault(`{"type":"sigstoreSigned","keyPaths":[]}`), "exactly one"},
		{"an empty one of several", withDefault(`{"type":"sigstoreSigned","keyPaths":["a",""]}`), "exactly one"},
		{"the same path twice", withDefault(`{"type":"sigstoreSigned","keyPaths":["a","a"]}`), "twice"},
		{"the same key twice", withDefault(`{"type":"sigstoreSigned","keyDatas":[` + quote(t, string(key)) + `,` + quote(t, string(key)) + `]}`), "twice"},
		{"paths and data", withDefault(`{"type":"sigstoreSigned","keyPaths":["a"],"keyDatas":[` + quote(t, string(key)) + `]}`), "exactly one"},
		{"threshold of none", withDefault(`{"type":"sigstoreSigned","keyPaths":["a","b"],"threshold":0}`), "threshold"},
		{"threshold of too many", withDefault(`{"type":"sigstoreSigned","keyPaths":["a","b"],"threshold":3}`), "threshold"},
		{"no annotations", withDefault(`{"type":"sigstoreSigned","keyPath":"a","annotations":{}}`), "annotations"},
		{"annotation without a value", withDefault(`{"type":"sigstoreSigned","keyPath":"a","annotations":{"a":""}}`), "annotation"},
		{"two keys in one", keyData(append(append([]byte{}, key...), key...)), "after the public key"},
		{"unknown identity", withDefault(`{"type":"sigstoreSigned","keyPath":"a","signedIdentity":{"type":"any"}}`), "not supported"},
		{"repository with a tag", withDefault(`{"type":"sigstoreSigned","keyPath":"a","signedIdentity":{"type":"exactRepository","dockerRepository":"a:v1"}}`), "does not fit"},
		{"reference without a tag", withDefault(`{"type":"sigstoreSigned","keyPath":"a","signedIdentity":{"type":"exactReference","dockerReference":"a"}}`), "does not fit"},
		{"remap without prefix", withDefault(`{"type":"sigstoreSigned","keyPath":"a","signedIdentity":{"type":"remapIdentity","signedPrefix":"a"}}`), "needs"},
		{"scope with a scheme", scope("docker://ghcr.io"), "scope"},
		{"scope with a slash at its end", scope("ghcr.io/"), "scope"},
		{"scope with a star", scope("ghcr.io/*"), "scope"},
		{"wildcard with a path", scope("*.example.com/a"), "scope"},
		{"scope with a space", scope("ghcr.io "), "scope"},
		{"short name", scope("alpine"), "scope"},
		{"short name with a tag", scope("docker.io/alpine:3"), "scope"},
		{"another name of Docker Hub", scope("index.docker.io/library"), "scope"},
		{"capitals in a host", scope("GHCR.io/a"), "scope"},
		{"capitals in a wildcard", scope("*.Example.com"), "scope"},
		{"capitals in a path", scope("ghcr.io/A"), "scope"},
		{"wildcard with a port", scope("*.example.com:5000"), "scope"},
		{"wildcard within", scope("a.*.com"), "scope"},
		{"a lone star", scope("*"), "scope"},
		{"tag and digest", scope("ghcr.io/a:v1@sha256:" + strings.Repeat("0", 64)), "scope"},
		{"short digest", scope("ghcr.io/a@sha256:00"), "scope"},
		{"misspelt transport", `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"Docker":{"":[{"type":"reject"}]}}}`, "does not exist"},
		{"remap of a tag", withDefault(`{"type":"sigstoreSigned","keyPath":"a","signedIdentity":{"type":"remapIdentity","prefix":"m.io/a:v1","signedPrefix":"a.io"}}`), "no host"},
		{"remap of a slash", withDefault(`{"type":"sigstoreSigned","keyPath":"a","signedIdentity":{"type":"remapIdentity","prefix":"m.io/a/","signedPrefix":"a.io"}}`), "no host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParsePolicy([]byte(tt.doc))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestScopes(t *testing.T) {
	tests := []struct {
		ref  string
		want []string
	}{
		{"alpine:3", []string{"docker.io/library/alpine:3", "docker.io/library/alpine", "docker.io/library", "docker.io", "*.io"}},
		{"r.eu.example.com:5000/a/b:v1", []string{"r.eu.example.com:5000/a/b:v1", "r.eu.example.com:5000/a/b", "r.eu.example.com:5000/a", "r.eu.example.com:5000", "*.eu.example.com", "*.example.com", "*.com"}},
		{"127.0.0.1:5000/a:v1", []string{"127.0.0.1:5000/a:v1", "127.0.0.1:5000/a", "127.0.0.1:5000"}},
		{"localhost/a:v1@sha256:" + strings.Repeat("0", 64), []string{"localhost/a@sha256:" + strings.Repeat("0", 64), "localhost/a", "localhost"}},
	}
	for _, tt := range tests {
		ref, err := registry.ParseReference(tt.ref)
		must(t, err)
		if got := scopes(ref); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %q\nwant %q", tt.ref, got, tt.want)
		}
	}
}

// A scope must cover exactly the names below it: no substring, no prefix that
// ends inside a component, nothing in the middle of a name.
func TestChooseIsAnchored(t *testing.T) {
	p, err := ParsePolicy([]byte(`{"default":[{"type":"reject"}],"transports":{"docker":{
		"example.com/foo":[{"type":"insecureAcceptAnything"}],
		"example.com/foo/bar:v1":[{"type":"reject"}],
		"*.corp.example":[{"type":"insecureAcceptAnything"}]}}}`))
	must(t, err)
	for ref, want := range map[string]string{
		"example.com/foo":          `transports.docker["example.com/foo"]`,
		"example.com/foo/bar:v2":   `transports.docker["example.com/foo"]`,
		"example.com/foo/bar:v1":   `transports.docker["example.com/foo/bar:v1"]`,
		"example.com/food":         "default",
		"example.com/fo":           "default",
		"evil.io/example.com/foo":  "default",
		"registry.example.com/foo": "default",
		"example.com:5000/foo":     "default",
		"a.corp.example/x":         `transports.docker["*.corp.example"]`,
		"a.b.corp.example:5000/x":  `transports.docker["*.corp.example"]`,
		"corp.example/x":           "default",
		"acorp.example/x":          "default",
		"a.corp.example.evil.io/x": "default",
		"evil.io/a.corp.example/x": "default",
	} {
		r, err := registry.ParseReference(ref)
		must(t, err)
		if got, _ := p.choose(r); got != want {
			t.Errorf("%s is under %s, want %s", ref, got, want)
		}
	}
}

func TestIdentity(t *testing.T) {
	digested := "ghcr.io/a/app@sha256:" + strings.Repeat("0", 64)
	tests := []struct {
		rule, ref, signed string
		want              bool
	}{
		{`{"type":"matchRepository"}`, "ghcr.io/a/app:v1", "ghcr.io/a/app", true},
		{`{"type":"matchRepository"}`, "ghcr.io/a/app:v1", "ghcr.io/a/app:v2", true},
		{`{"type":"matchRepository"}`, digested, "ghcr.io/a/app", true},
		{`{"type":"matchRepository"}`, "ghcr.io/a/app:v1", "ghcr.io/a/apple", false},
		{`{"type":"matchRepository"}`, "alpine", "index.docker.io/library/alpine", true},
		{`{"type":"matchRepository"}`, "ghcr.io/a/app:v1", "", false},
		{`{"type":"matchRepository"}`, "ghcr.io/a/app:v1", "not a name", false},
		{`{"type":"matchExact"}`, "ghcr.io/a/app:v1", "ghcr.io/a/app:v1", true},
		{`{"type":"matchExact"}`, "ghcr.io/a/app:v1", "ghcr.io/a/app:v2", false},
		{`{"type":"matchExact"}`, "ghcr.io/a/app:v1", "ghcr.io/a/app", false},
		{`{"type":"matchExact"}`, digested, digested, false},
		{`{"type":"matchRepoDigestOrExact"}`, "ghcr.io/a/app:v1", "ghcr.io/a/app:v1", true},
		{`{"type":"matchRepoDigestOrExact"}`, "ghcr.io/a/app:v1", "ghcr.io/a/app:v2", false},
		{`{"type":"matchRepoDigestOrExact"}`, digested, "ghcr.io/a/app:v2", true},
		{`{"type":"matchRepoDigestOrExact"}`, digested, "ghcr.io/a/app", false},
		{`{"type":"exactReference","dockerReference":"ghcr.io/b:v1"}`, "ghcr.io/a/app:v1", "ghcr.io/b:v1", true},
		{`{"type":"exactReference","dockerReference":"ghcr.io/b:v1"}`, "ghcr.io/a/app:v1", "ghcr.io/a/app:v1", false},
		{`{"type":"exactRepository","dockerRepository":"ghcr.io/b"}`, "ghcr.io/a/app:v1", "ghcr.io/b", true},
		{`{"type":"exactRepository","dockerRepository":"ghcr.io/b"}`, "ghcr.io/a/app:v1", "ghcr.io/a/app", false},
		{`{"type":"remapIdentity","prefix":"mirror.local/a","signedPrefix":"ghcr.io/a"}`, "mirror.local/a/app:v1", "ghcr.io/a/app:v1", true},
		{`{"type":"remapIdentity","prefix":"mirror.local/a","signedPrefix":"ghcr.io/a"}`, "mirror.local/a/app:v1", "mirror.local/a/app:v1", false},
		{`{"type":"remapIdentity","prefix":"mirror.local/a","signedPrefix":"ghcr.io/a"}`, "mirror.local/apple:v1", "ghcr.io/apple:v1", false},
	}
	for _, tt := range tests {
		p, err := ParsePolicy([]byte(withDefault(`{"type":"sigstoreSigned","keyPath":"k","signedIdentity":` + tt.rule + `}`)))
		must(t, err)
		ref, err := registry.ParseReference(tt.ref)
		must(t, err)
		if got := p.fallback[0].identity.matches(ref, tt.signed); got != tt.want {
			t.Errorf("%s: %s signed as %q: %v", tt.rule, tt.ref, tt.signed, got)
		}
	}
	p, err := ParsePolicy([]byte(withDefault(`{"type":"sigstoreSigned","keyPath":"k"}`)))
	must(t, err)
	if p.fallback[0].identity.kind != matchRepository {
		t.Errorf("the default identity is %q", p.fallback[0].identity.kind)
	}
}

func TestKeyKinds(t *testing.T) {
	payload := []byte("payload")
	curve := func(c elliptic.Curve) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		must(t, err)
		return k
	}
	p256, p384, p521 := newKey(t), curve(elliptic.P384()), curve(elliptic.P521())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	edPub, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	with := func(k crypto.Signer, message []byte, opts crypto.SignerOpts) []byte {
		sig, err := k.Sign(rand.Reader, message, opts)
		must(t, err)
		return sig
	}
	for name, tt := range map[string]struct {
		pub any
		sig []byte
	}{
		"P-256":                   {p256.Public(), sign(t, p256, payload)},
		"P-384":                   {p384.Public(), sign(t, p384, payload)},
		"P-384 as cosign 2":       {p384.Public(), with(p384, sum256(payload), crypto.SHA256)},
		"P-521":                   {p521.Public(), with(p521, sum512(payload), crypto.SHA512)},
		"P-521 as cosign 2":       {p521.Public(), with(p521, sum256(payload), crypto.SHA256)},
		"RSA":                     {rsaKey.Public(), sign(t, rsaKey, payload)},
		"RSA-PSS":                 {rsaKey.Public(), with(rsaKey, sum256(payload), &rsa.PSSOptions{Hash: crypto.SHA256})},
		"RSA-PSS with short salt": {rsaKey.Public(), with(rsaKey, sum256(payload), &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 32})},
		"Ed25519":                 {edPub, sign(t, edKey, payload)},
		"Ed25519ph":               {edPub, with(edKey, sum512(payload), crypto.SHA512)},
	} {
		k, err := parseKey(publicPEM(t, tt.pub))
		must(t, err)
		if !k.verify(sigstore.Bytes(payload), tt.sig) {
			t.Errorf("%s: a good signature was refused", name)
		}
		flipped := bytes.Clone(tt.sig)
		flipped[len(flipped)-1] ^= 1
		if k.verify(sigstore.Bytes([]byte("other")), tt.sig) || k.verify(sigstore.Bytes(payload), tt.sig[1:]) ||
			k.verify(sigstore.Bytes(payload), nil) || k.verify(sigstore.Bytes(payload), flipped) || k.verify(sigstore.Hashed(nil), tt.sig) {
			t.Errorf("%s: a bad signature was accepted", name)
		}
		if fp, err := Fingerprint(tt.pub); err != nil || fp != k.fingerprint || !strings.HasPrefix(fp, "sha256:") {
			t.Errorf("%s: fingerprint %s, %v", name, fp, err)
		}
	}
	rsa512 := with(rsaKey, sum512(payload), crypto.SHA512)
	if k, err := parseKey(publicPEM(t, rsaKey.Public())); err != nil || k.verify(sigstore.Bytes(payload), rsa512) {
		t.Errorf("RSA with another hash verifies (%v)", err)
	}
	if k, err := parseKey(publicPEM(t, newKey(t).Public())); err != nil || k.verify(sigstore.Bytes(payload), sign(t, p256, payload)) {
		t.Errorf("another key verifies (%v)", err)
	}
}

// The policy that the manual shows is one.
func TestDocumentedPolicy(t *testing.T) {
	page, err := os.ReadFile("../../docs/image-policy.md")
	must(t, err)
	_, rest, _ := strings.Cut(string(page), "```json\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the page has no example")
	}
	p, err := ParsePolicy([]byte(example))
	if err != nil || len(p.docker) != 8 {
		t.Fatalf("%+v, %v", p, err)
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(withDefault(`{"type":"sigstoreSigned","keyPath":"kbs:///a/b/c","signedIdentity":{"type":"matchRepository"}}`)))
	f.Add([]byte(withDefault(`{"type":"sigstoreSigned","keyPaths":["a","b"],"threshold":2,"annotations":{"a":"b"}}`)))
	f.Add(fmt.Appendf(nil, `{"default":[{"type":"reject"}],"transports":{"docker":{"*.io":[{"type":"insecureAcceptAnything"}]}}}`))
	ref, err := registry.ParseReference("ghcr.io/a/b:v1")
	must(f, err)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParsePolicy(raw)
		if err != nil {
			return
		}
		scope, reqs := p.choose(ref)
		if len(reqs) == 0 {
			t.Fatalf("%s has no requirements", scope)
		}
		for _, r := range reqs {
			if r.kind != typeReject && r.kind != typeEncrypted && r.kind != typeAccept && r.kind != typeSigstore && r.kind != typeSignedBy {
				t.Fatalf("accepted type %q", r.kind)
			}
		}
	})
}
