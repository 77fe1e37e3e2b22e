package ship_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// authority makes a root certificate, and a chain of two for a new key.
func authority(t testing.TB, began time.Time) (root, chain []byte, key secret.Bytes) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	root, chain = certify(t, began, own.Public())
	return root, chain, pkcs8(t, own)
}

// certify makes a root certificate, and a chain of two for a key.
func certify(t testing.TB, began time.Time, public crypto.PublicKey) (root, chain []byte) {
	t.Helper()
	above, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: began, NotAfter: began.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, ca, ca, above.Public(), above)
	must(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: began, NotAfter: began.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		Subject:     pkix.Name{Country: []string{"DE"}, Province: []string{"Berlin"}, Organization: []string{"Shop"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, public, above)
	must(t, err)
	root = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER})
	return root, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}), root...)
}

func evaluate(t testing.TB, s *imagetest.Server, name, requirement string, files map[string][]byte) (trust.Verdict, error) {
	t.Helper()
	p, err := trust.ParsePolicy([]byte(`{"default":[` + requirement + `],"transports":{}}`))
	must(t, err)
	repo, ref := imagetest.Repository(t, s.Config(), name)
	res, err := registry.Resolve(t.Context(), repo, ref.Version(), registry.Native())
	must(t, err)
	return p.Evaluate(t.Context(), trust.Subject{Reference: ref, Root: res.Root.Digest, Manifest: res.Manifest.Digest},
		trust.Evidence{Signatures: repo, Keys: func(_ context.Context, path string) ([]byte, error) { return files[path], nil }})
}

func TestSignNotation(t *testing.T) {
	s := imagetest.Serve(t)
	ref := s.Host + "/app:v1"
	imagetest.Push(t, s, ref, nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
	root, chain, key := authority(t, time.Now().Add(-time.Minute))
	otherRoot, otherChain, otherKey := authority(t, time.Now().Add(-time.Minute))
	const rule = `{"type":"notationSigned","caPath":"ca","trustedIdentities":["x509.subject: C=DE, ST=Berlin, O=Shop"],"insecureIgnoreRevocation":true,"atLeast":{"version":"1.4"}}`
	o := ship.SignOptions{Forms: []ship.SignForm{ship.SignNotation}, Annotations: map[string]string{"version": "1.4.1"}, Certificates: chain, Registry: s.Config()}
	_, err := ship.Sign(t.Context(), ref, otherKey, o)
	if err == nil || !strings.Contains(err.Error(), "not that of the signing key") {
		t.Errorf("another key's certificates: %v", err)
	}
	done, err := ship.Sign(t.Context(), ref, key, o)
	must(t, err)
	if len(done.Signatures) != 1 || done.Signatures[0].Form != ship.SignNotation {
		t.Errorf("%+v", done)
	}
	v, err := evaluate(t, s, ref, rule, map[string][]byte{"ca": root})
	if err != nil || v.Signatures[0].Form != trust.FormJWS {
		t.Fatalf("%+v, %v", v, err)
	}
	// Where the registry lists no referrers, the list says of what type they are.
	repo, _ := imagetest.Repository(t, s.Config(), ref)
	if list, err := repo.Referrers(t.Context(), digest.Digest(done.Digest)); err != nil || len(list) != 1 || list[0].ArtifactType != trust.ArtifactNotation {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := evaluate(t, s, ref, rule, map[string][]byte{"ca": otherRoot}); err == nil {
		t.Error("accepted under another root")
	}
	for name, change := range map[string]func(*ship.SignOptions){
		"no certificate":                  func(o *ship.SignOptions) { o.Certificates = nil },
		"a certificate that nothing uses": func(o *ship.SignOptions) { o.Forms = nil },
		"half of a chain":                 func(o *ship.SignOptions) { o.Certificates = chain[:len(chain)-len(root)] },
		"text behind it":                  func(o *ship.SignOptions) { o.Certificates = slices.Concat(chain, []byte("x")) },
		"another chain":                   func(o *ship.SignOptions) { o.Certificates = otherChain },
		"an unknown form":                 func(o *ship.SignOptions) { o.Forms = []ship.SignForm{"pgp"} },
	} {
		bad := o
		change(&bad)
		if done, err := ship.Sign(t.Context(), ref, key, bad); err == nil {
			t.Errorf("%s: %+v", name, done)
		}
	}
}

// elsewhere is a key of which only the public half is here. It counts what it
// signs, and damages it if told to.
type elsewhere struct {
	crypto.Signer
	signed  int
	damages bool
	opts    crypto.SignerOpts // of the last one
}

func (e *elsewhere) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	e.signed, e.opts = e.signed+1, opts
	sig, err := e.Signer.Sign(r, digest, opts)
	if e.damages {
		sig[len(sig)-1] ^= 1
	}
	return sig, err
}

// Keys that are elsewhere sign for Notation, each by its own algorithm.
func TestSignNotationElsewhere(t *testing.T) {
	s := imagetest.Serve(t)
	for name, generate := range map[string]func() (crypto.Signer, error){
		"p256":     func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"p384":     func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
		"p521":     func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) },
		"rsa-2048": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		"rsa-3072": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) },
	} {
		t.Run(name, func(t *testing.T) {
			ref := s.Host + "/" + name + ":v1"
			imagetest.Push(t, s, ref, nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
			key, err := generate()
			must(t, err)
			root, chain := certify(t, time.Now().Add(-time.Minute), key.Public())
			const rule = `{"type":"notationSigned","caPath":"ca","trustedIdentities":["x509.subject: C=DE, ST=Berlin, O=Shop"],"insecureIgnoreRevocation":true}`
			o := ship.SignOptions{Forms: []ship.SignForm{ship.SignNotation}, Certificates: chain, Registry: s.Config()}
			// What is no signature is not handed on.
			if done, err := ship.SignWith(t.Context(), ref, &elsewhere{Signer: key, damages: true}, o); err == nil {
				t.Errorf("a damaged signature: %+v", done)
			}
			if _, err := evaluate(t, s, ref, rule, map[string][]byte{"ca": root}); err == nil {
				t.Error("accepted before it was signed")
			}
			at := &elsewhere{Signer: key}
			_, err = ship.SignWith(t.Context(), ref, at, o)
			must(t, err)
			v, err := evaluate(t, s, ref, rule, map[string][]byte{"ca": root})
			if err != nil || v.Signatures[0].Form != trust.FormJWS || at.signed != 1 {
				t.Errorf("%+v, %v, signed %d times", v, err, at.signed)
			}
			// Verifiers take a salt of any length, the standard does not (RFC 7518 section 3.5).
			if pss, ok := at.opts.(*rsa.PSSOptions); ok != strings.HasPrefix(name, "rsa") || ok && pss.SaltLength != rsa.PSSSaltLengthEqualsHash {
				t.Errorf("signed with %+v", at.opts)
			}
		})
	}
}

// Keys that Notation does not know are refused before anything is written.
func TestSignNotationRefusesKeys(t *testing.T) {
	s := imagetest.Serve(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	odd, err := rsa.GenerateKey(rand.Reader, 2560)
	must(t, err)
	for name, key := range map[string]crypto.Signer{"Ed25519": ed, "RSA of 2560 bits": odd} {
		_, chain := certify(t, time.Now().Add(-time.Minute), key.Public())
		at := &elsewhere{Signer: key}
		o := ship.SignOptions{Forms: []ship.SignForm{ship.SignTag, ship.SignNotation}, Certificates: chain, Registry: s.Config()}
		if _, err := ship.SignWith(t.Context(), s.Host+"/none:v1", at, o); err == nil || !strings.Contains(err.Error(), "Notation") || at.signed > 0 {
			t.Errorf("%s: %v, signed %d times", name, err, at.signed)
		}
	}
}

// Two of three must have signed, wherever each signature lies.
func TestSignedByTwoOfThree(t *testing.T) {
	s := imagetest.Serve(t)
	ref := s.Host + "/app:v1"
	imagetest.Push(t, s, ref, nil, imagetest.GzipLayer(t, imagetest.File("a", "a")))
	files, keys := map[string][]byte{}, map[string]secret.Bytes{}
	for _, name := range []string{"a", "b", "c"} {
		var err error
		keys[name], files[name], err = ship.GenerateKey()
		must(t, err)
	}
	rule := func(n int) string {
		return fmt.Sprintf(`{"type":"sigstoreSigned","keyPaths":["a","b","c"],"threshold":%d}`, n)
	}
	sign := func(name string, form ship.SignForm) {
		_, err := ship.Sign(t.Context(), ref, keys[name], ship.SignOptions{Forms: []ship.SignForm{form}, Registry: s.Config()})
		must(t, err)
	}
	sign("a", ship.SignBundle)
	sign("a", ship.SignTag) // the same key twice is one
	_, err := evaluate(t, s, ref, rule(2), files)
	rej, ok := errors.AsType[*trust.Rejection](err)
	if !ok || !strings.Contains(rej.Error(), "1 of the 2 keys") || len(rej.Signed) != 1 || len(rej.Wanted) != 3 {
		t.Fatalf("%v", err)
	}
	sign("c", ship.SignTag)
	v, err := evaluate(t, s, ref, rule(2), files)
	if err != nil || len(v.Signers) != 2 || len(v.Quorums) != 1 || v.Quorums[0] != (trust.Quorum{Needed: 2, Of: 3}) {
		t.Errorf("%+v, %v", v, err)
	}
}
