package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// An authority certifies keys of which it sees the public half alone.
type authority struct {
	testing.TB
	key  *ecdsa.PrivateKey
	self *x509.Certificate
	root []byte // PEM
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	began := time.Now().Add(-time.Hour)
	self := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: began, NotAfter: began.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, self, self, key.Public(), key)
	must(t, err)
	return &authority{t, key, self, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// chain certifies the key whose public half lies in a file.
func (a *authority) chain(s *stage, label string) string {
	a.Helper()
	text, err := os.ReadFile(s.path(label + ".pub"))
	must(a, err)
	block, _ := pem.Decode(text)
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	must(a, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: a.self.NotBefore, NotAfter: a.self.NotBefore.AddDate(0, 1, 0),
		Subject:  pkix.Name{Country: []string{"DE"}, Province: []string{"Berlin"}, Organization: []string{"Shop"}, CommonName: label},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}, a.self, public, a.key)
	must(a, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(a.root)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// notationAlgorithm reads by which algorithm the one signature beside an image
// was made (RFC 7515 section 4.1.1).
func notationAlgorithm(t *testing.T, image string) string {
	t.Helper()
	ref, err := name.ParseReference(image, name.Insecure)
	must(t, err)
	about, err := remote.Head(ref)
	must(t, err)
	index, err := remote.Referrers(ref.Context().Digest(about.Digest.String()))
	must(t, err)
	list, err := index.IndexManifest()
	must(t, err)
	if len(list.Manifests) != 1 {
		t.Fatalf("%d referrers", len(list.Manifests))
	}
	img, err := remote.Image(ref.Context().Digest(list.Manifests[0].Digest.String()))
	must(t, err)
	manifest, err := img.RawManifest()
	must(t, err)
	var doc v1.Manifest
	must(t, json.Unmarshal(manifest, &doc))
	layer, err := remote.Layer(ref.Context().Digest(doc.Layers[0].Digest.String()))
	must(t, err)
	blob, err := layer.Compressed()
	must(t, err)
	defer func() { _ = blob.Close() }()
	var envelope struct{ Protected string }
	must(t, json.NewDecoder(blob).Decode(&envelope))
	header, err := base64.RawURLEncoding.DecodeString(envelope.Protected)
	must(t, err)
	var protected struct{ Alg string }
	must(t, json.Unmarshal(header, &protected))
	return protected.Alg
}
