// Package sigstoretest is a sigstore of one's own for tests: an authority like
// Fulcio, a log of certificates, a log like Rekor and an authority for
// timestamps, with keys that live as long as the test. It signs what it is told
// to sign, also what no honest one would.
package sigstoretest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Start is when everything of a World begins to count.
var Start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A World is one sigstore.
type World struct {
	t       testing.TB
	root    *authority // of Fulcio
	issuing *authority // below root
	tsa     *authority // issues the stamper's certificate
	stamper *authority
	ctKey   *ecdsa.PrivateKey
	log     *ecdsa.PrivateKey
	leaves  [][]byte
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes a sigstore whose log has a few entries already.
func New(t testing.TB) *World {
	w := &World{t: t, ctKey: NewKey(t), log: NewKey(t)}
	w.root = w.authority("fulcio root", nil, nil)
	w.issuing = w.authority("fulcio intermediate", w.root, nil)
	w.tsa = w.authority("timestamps root", nil, nil)
	w.stamper = w.authority("timestamps", w.tsa, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature
		usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
		w.must(err)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}}
	})
	for _, text := range []string{"a", "b", "c", "d", "e"} {
		w.leaves = append(w.leaves, []byte(text))
	}
	return w
}

func (w *World) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// NewKey makes an ECDSA key.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (w *World) authority(name string, by *authority, change func(*x509.Certificate)) *authority {
	a := &authority{key: NewKey(w.t)}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: Start, NotAfter: Start.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(c)
	}
	if by == nil {
		by = &authority{cert: c, key: a.key}
	}
	a.cert = w.issue(c, by, a.key.Public())
	return a
}

func (w *World) issue(c *x509.Certificate, by *authority, key crypto.PublicKey) *x509.Certificate {
	w.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, key, by.key)
	w.must(err)
	cert, err := x509.ParseCertificate(der)
	w.must(err)
	return cert
}

// A Wish is what a signer's certificate should say.
type Wish struct {
	Issuer, Subject string // a subject with :// becomes a URI, another one an e-mail address
	At              time.Time
	WithoutSCT      bool
	Change          func(*x509.Certificate) // before it is issued
}

// Certificate issues a certificate of ten minutes, as Fulcio does.
func (w *World) Certificate(wish Wish) (*x509.Certificate, *ecdsa.PrivateKey) {
	w.t.Helper()
	key := NewKey(w.t)
	issuer, err := asn1.MarshalWithParams(wish.Issuer, "utf8")
	w.must(err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: wish.At, NotAfter: wish.At.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(wish.Issuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer},
		},
	}
	if strings.Contains(wish.Subject, "://") {
		u, err := url.Parse(wish.Subject)
		w.must(err)
		c.URIs = []*url.URL{u}
	} else {
		c.EmailAddresses = []string{wish.Subject}
	}
	if wish.Change != nil {
		wish.Change(c)
	}
	if !wish.WithoutSCT {
		w.logCertificate(c, key.Public(), wish.At)
	}
	return w.issue(c, w.issuing, key.Public()), key
}

// logCertificate adds the promise of the log of certificates (RFC 6962, 3.2).
func (w *World) logCertificate(c *x509.Certificate, key crypto.PublicKey, at time.Time) {
	w.t.Helper()
	tbs := w.issue(c, w.issuing, key).RawTBSCertificate
	issuer := sha256.Sum256(w.issuing.cert.RawSubjectPublicKeyInfo)
	stamp := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))
	msg := append([]byte{0, 0}, stamp...)
	msg = append(append(msg, 0, 1), issuer[:]...)
	msg = append(append(msg, byte(len(tbs)>>16), byte(len(tbs)>>8), byte(len(tbs))), tbs...)
	sig := Sign(w.t, w.ctKey, append(msg, 0, 0))
	id := w.id(w.ctKey.Public())
	sct := append(append([]byte{0}, id...), stamp...)
	sct = append(append(sct, 0, 0, 4, 3, byte(len(sig)>>8), byte(len(sig))), sig...)
	list := append([]byte{byte((len(sct) + 2) >> 8), byte(len(sct) + 2), byte(len(sct) >> 8), byte(len(sct))}, sct...)
	value, err := asn1.Marshal(list)
	w.must(err)
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value})
}

// Sign makes an ECDSA signature with SHA-256.
func Sign(t testing.TB, key *ecdsa.PrivateKey, message []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func (w *World) id(key crypto.PublicKey) []byte {
	w.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	w.must(err)
	sum := sha256.Sum256(der)
	return sum[:]
}

// PEM returns a certificate or a public key as PEM.
func PEM(t testing.TB, v any) []byte {
	t.Helper()
	if c, ok := v.(*x509.Certificate); ok {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	der, err := x509.MarshalPKIXPublicKey(v)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// LogKey is the public key of the log, PEM; CA the root of the authority.
func (w *World) LogKey() []byte { return PEM(w.t, w.log.Public()) }

// CA returns the certificates of the authority, PEM: the root and what is below.
func (w *World) CA() []byte { return PEM(w.t, w.root.cert) }

// TSA are the certificates of the authority for timestamps, PEM.
func (w *World) TSA() []byte { return append(PEM(w.t, w.stamper.cert), PEM(w.t, w.tsa.cert)...) }

// Intermediate is the certificate that issues the signers', PEM.
func (w *World) Intermediate() []byte { return PEM(w.t, w.issuing.cert) }

// Root is the trusted_root.json of this world; change may edit it.
func (w *World) Root(change func(doc map[string]any)) []byte {
	w.t.Helper()
	valid := func() map[string]any { return map[string]any{"start": Start} }
	log := func(key crypto.PublicKey) []any {
		der, err := x509.MarshalPKIXPublicKey(key)
		w.must(err)
		return []any{map[string]any{
			"baseUrl": "https://log.example", "hashAlgorithm": "SHA2_256", "logId": map[string]any{"keyId": w.id(key)},
			"publicKey": map[string]any{"rawBytes": der, "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid()},
		}}
	}
	chain := func(certs ...*x509.Certificate) []any {
		var list []any
		for _, c := range certs {
			list = append(list, map[string]any{"rawBytes": c.Raw})
		}
		return []any{map[string]any{
			"subject": map[string]any{"organization": "test"}, "certChain": map[string]any{"certificates": list}, "validFor": valid(),
		}}
	}
	doc := map[string]any{
		"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", "tlogs": log(w.log.Public()), "ctlogs": log(w.ctKey.Public()),
		"certificateAuthorities": chain(w.issuing.cert, w.root.cert), "timestampAuthorities": chain(w.stamper.cert, w.tsa.cert),
	}
	if change != nil {
		change(doc)
	}
	raw, err := json.Marshal(doc)
	w.must(err)
	return raw
}
