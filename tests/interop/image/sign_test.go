package image

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/image/keyfile"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// What we sign cosign 3 verifies, in each form, and with both beside each other.
func TestCosignVerifies(t *testing.T) {
	cosign := newTool(t, "cosign")
	key, public, err := ship.GenerateKey()
	must(t, err)
	_, other, err := ship.GenerateKey()
	must(t, err)
	pub, wrong := cosign.write("our.pub", public), cosign.write("other.pub", other)
	for name, forms := range map[string][]ship.SignForm{"by default": nil, "tag": {ship.SignTag}, "bundle": {ship.SignBundle}} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, w *world) {
				cosign.t = t
				verify := []string{"verify", "--insecure-ignore-tlog=true", "--allow-http-registry", "--key"}
				cosign.fails("no ", append(verify, pub, w.ref)...)
				w.sign(key, ship.SignOptions{Forms: forms, Annotations: map[string]string{"env": "prod"}})
				out := cosign.run(append(verify, pub, w.ref)...)
				if !strings.Contains(out, "were validated") && !strings.Contains(out, "verified against the specified public key") {
					t.Errorf("cosign says\n%s", out)
				}
				cosign.fails("", append(verify, wrong, w.ref)...)
			})
		})
	}
}

// What cosign 3 signs we accept. It signs no name.
func TestCosignSigns(t *testing.T) {
	cosign := newTool(t, "cosign", "COSIGN_PASSWORD=")
	cosign.run("generate-key-pair")
	files := map[string][]byte{"k": cosign.read("cosign.pub")}
	_, files["o"], _ = ship.GenerateKey()
	sign := []string{"sign", "--key", "cosign.key", "--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry", "--yes"}
	const ignoring = `,"signedIdentity":{"type":"insecureIgnoreIdentity"}}`
	for name, tt := range map[string]struct {
		args []string
		form trust.Form
	}{
		"a bundle": {nil, trust.FormDSSE},
		"a tag":    {[]string{"--new-bundle-format=false"}, trust.FormSimple},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, w *world) {
				cosign.t = t
				cosign.run(append(append(sign, tt.args...), w.ref)...)
				v, err := w.judge(`{"type":"sigstoreSigned","keyPath":"k"`+ignoring, files)
				if err != nil || v.Signatures[0].Form != tt.form {
					t.Errorf("%+v, %v", v, err)
				}
				if _, err := w.judge(`{"type":"sigstoreSigned","keyPath":"o"`+ignoring, files); err == nil {
					t.Error("accepted by another key")
				}
			})
		})
	}
}

// The keys that cosign locks, with a password and with an empty one, are read
// where we sign.
func TestKeysOfCosign(t *testing.T) {
	for _, word := range []string{"", "open sesame"} {
		cosign := newTool(t, "cosign", "COSIGN_PASSWORD="+word)
		cosign.run("generate-key-pair")
		locked := secret.New(cosign.read("cosign.key"))
		if !keyfile.Locked(locked) {
			t.Error("it does not look locked")
		}
		key, err := keyfile.Unlock(locked, secret.New([]byte(word)))
		must(t, err)
		public, err := ship.PublicKey(key)
		must(t, err)
		if !bytes.Equal(public, cosign.read("cosign.pub")) {
			t.Errorf("another key came out: %s", public)
		}
		if _, err := keyfile.Unlock(locked, secret.New([]byte("wrong"))); !errors.Is(err, keyfile.ErrPassword) {
			t.Errorf("a wrong password: %v", err)
		}
	}
}

// notary is a key with a certificate under a root.
type notary struct{ root, chain, key []byte }

func newNotary(t testing.TB) notary {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return notaryWith(t, own)
}

func notaryWith(t testing.TB, own crypto.Signer) notary {
	t.Helper()
	above, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	began := time.Now().Add(-time.Hour)
	name := pkix.Name{Country: []string{"DE"}, Province: []string{"Berlin"}, Organization: []string{"Shop"}, CommonName: "release"}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: began, NotAfter: began.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: name, NotBefore: began, NotAfter: began.AddDate(0, 1, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	text := func(kind string, der []byte, err error) []byte {
		must(t, err)
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, above.Public(), above)
	root := text("CERTIFICATE", der, err)
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, own.Public(), above)
	chain := append(text("CERTIFICATE", der, err), root...)
	der, err = x509.MarshalPKCS8PrivateKey(own)
	return notary{root: root, chain: chain, key: text("PRIVATE KEY", der, err)}
}

// configure gives notation the key, and trust in its root.
func (n notary) configure(t testing.TB, notation *tool) {
	t.Helper()
	const dir = ".config/notation/"
	notation.write(dir+"truststore/x509/ca/shop/root.pem", n.root)
	key, cert := notation.write("shop.key", n.key), notation.write("shop.pem", n.chain)
	keys, err := json.Marshal(map[string]any{"default": "shop", "keys": []any{map[string]string{"name": "shop", "keyPath": key, "certPath": cert}}})
	must(t, err)
	notation.write(dir+"signingkeys.json", keys)
	notation.write(dir+"trustpolicy.json", []byte(`{"version":"1.0","trustPolicies":[{"name":"shop","registryScopes":["*"],
		"signatureVerification":{"level":"strict","override":{"revocation":"skip"}},"trustStores":["ca:shop"],
		"trustedIdentities":["x509.subject: C=DE, ST=Berlin, O=Shop"]}]}`))
}

const notationRule = `{"type":"notationSigned","caPath":"ca","trustedIdentities":["x509.subject: C=DE, ST=Berlin, O=Shop"],"insecureIgnoreRevocation":true}`

// What we sign for the Notary Project its program verifies, with keys of every
// algorithm.
func TestNotationVerifies(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	rsa3072, err := rsa.GenerateKey(rand.Reader, 3072)
	must(t, err)
	for name, key := range map[string]crypto.Signer{"ES256": p256, "ES512": p521, "PS256": rsa2048, "PS384": rsa3072} {
		t.Run(name, func(t *testing.T) {
			notation, n := newTool(t, "notation"), notaryWith(t, key)
			n.configure(t, notation)
			everywhere(t, func(t *testing.T, w *world) {
				notation.t = t
				notation.fails("no signature", "verify", "--insecure-registry", w.ref)
				w.sign(secret.Copy(n.key), ship.SignOptions{Forms: []ship.SignForm{ship.SignNotation}, Certificates: n.chain, Annotations: map[string]string{"env": "prod"}})
				if out := notation.run("verify", "--insecure-registry", "--user-metadata", "env=prod", w.ref); !strings.Contains(out, "Successfully verified") {
					t.Errorf("notation says\n%s", out)
				}
				notation.fails("", "verify", "--insecure-registry", "--user-metadata", "env=test", w.ref)
			})
		})
	}
}

// What the program signs we accept, in both of its forms.
func TestNotationSigns(t *testing.T) {
	notation, n, other := newTool(t, "notation"), newNotary(t), newNotary(t)
	n.configure(t, notation)
	for format, form := range map[string]trust.Form{"jws": trust.FormJWS, "cose": trust.FormCOSE} {
		t.Run(format, func(t *testing.T) {
			everywhere(t, func(t *testing.T, w *world) {
				notation.t = t
				notation.run("sign", "--insecure-registry", "--force-referrers-tag=false", "--signature-format", format, w.ref)
				v, err := w.judge(notationRule, map[string][]byte{"ca": n.root})
				if err != nil || v.Signatures[0].Form != form {
					t.Errorf("%+v, %v", v, err)
				}
				if _, err := w.judge(notationRule, map[string][]byte{"ca": other.root}); err == nil {
					t.Error("accepted under another root")
				}
			})
		})
	}
}
