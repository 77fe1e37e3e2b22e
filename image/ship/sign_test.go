package ship_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
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
	above, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
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
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, own.Public(), above)
	must(t, err)
	root = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER})
	return root, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}), root...), pkcs8(t, own)
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
