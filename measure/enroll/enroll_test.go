package enroll

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
)

// maker is a manufacturer of TPMs.
type maker struct {
	*testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newMaker(t *testing.T) maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := maker{t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "maker"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, key}
	m.cert = m.sign(m.cert, key.Public())
	return m
}

func (m maker) sign(template *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	m.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, m.cert, key, m.key)
	if err != nil {
		m.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		m.Fatal(err)
	}
	return c
}

// endorse certifies a key as that of a TPM.
func (m maker) endorse(key crypto.PublicKey, usage ...int) []byte {
	m.Helper()
	return m.sign(&x509.Certificate{
		SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{CommonName: "TPM"}, NotBefore: m.cert.NotBefore, NotAfter: m.cert.NotAfter,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{append(asn1.ObjectIdentifier{2, 23, 133, 8}, usage...)},
	}, key).Raw
}

// trust believes the maker, with a list that revokes these numbers.
func (m maker) trust(revoked ...int64) tpm.Endorsement {
	m.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: m.cert.NotBefore, NextUpdate: m.cert.NotAfter}
	for _, n := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: m.cert.NotBefore})
	}
	crl, err := x509.CreateRevocationList(rand.Reader, list, m.cert, m.key)
	if err != nil {
		m.Fatal(err)
	}
	bundle := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl})...)
	return tpm.Endorsement{Manufacturers: []tpm.Authority{{Name: "maker", Bundle: bundle}}, Now: time.Now()}
}

// chip is a real TPM in software, with the public half of its endorsement key.
type chip struct {
	*tpmdev.TPM
	ek *rsa.PublicKey
}

func newChip(t *testing.T) chip {
	t.Helper()
	open := swtpmtest.Start(t)
	dev, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return chip{tpmdev.New(open), endorsementOf(t, dev)}
}

func endorsementOf(t *testing.T, dev transport.TPMCloser) *rsa.PublicKey {
	t.Helper()
	defer func() { _ = dev.Close() }()
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)}, InPublic: tpm2.New2B(tpm2.RSAEKTemplate),
	}.Execute(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(dev) }()
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	parms, err := public.Parameters.RSADetail()
	if err != nil {
		t.Fatal(err)
	}
	unique, err := public.Unique.RSA()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.RSAPub(parms, unique)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (c chip) public(t *testing.T) []byte {
	t.Helper()
	raw, err := c.Public(t.Context(), tpm.DefaultAK)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// The TPM of both keys answers, and its attestation key is enrolled; another TPM,
// of the same maker or not, cannot.
func TestActivation(t *testing.T) {
	m, own, other := newMaker(t), newChip(t), newChip(t)
	request := Request{EKCertificate: m.endorse(own.ek, 1), AKPublic: own.public(t)}
	challenge, pending, err := Begin(request, m.trust())
	if err != nil {
		t.Fatal(err)
	}
	opened, err := own.Activate(t.Context(), tpm.DefaultAK, challenge.Credential, challenge.Secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pending.Finish(Answer{opened}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	want, err := own.AttestationKey(t.Context(), tpm.DefaultAK, false)
	if err != nil {
		t.Fatal(err)
	}
	if spki, err := x509.MarshalPKIXPublicKey(want); err != nil || !bytes.Equal(key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})) {
		t.Errorf("another key is enrolled: %s, %v", key, err)
	}
	if _, err := pending.Finish(Answer{opened}, time.Now().Add(2*patience)); err == nil {
		t.Error("the challenge is answered when it is stale")
	}
	if _, err := pending.Finish(Answer{pending.Answer}, time.Now()); !errors.Is(err, ErrAnswer) {
		t.Errorf("what is pending answers by itself: %v", err)
	}
	other.public(t)
	if _, err := other.Activate(t.Context(), tpm.DefaultAK, challenge.Credential, challenge.Secret); err == nil {
		t.Error("another TPM opens the challenge")
	}
	// An endorsement key here, an attestation key there.
	mixed, _, err := Begin(Request{EKCertificate: request.EKCertificate, AKPublic: other.public(t)}, m.trust())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]chip{"with the endorsement key": own, "with the attestation key": other} {
		if _, err := c.Activate(t.Context(), tpm.DefaultAK, mixed.Credential, mixed.Secret); err == nil {
			t.Errorf("the TPM %s alone opens the challenge", name)
		}
	}
}

func TestRefusals(t *testing.T) {
	m, own := newMaker(t), newChip(t)
	good := Request{EKCertificate: m.endorse(own.ek, 1), AKPublic: own.public(t)}
	small, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	unrestricted, err := tpm2.Unmarshal[tpm2.TPMTPublic](good.AKPublic)
	if err != nil {
		t.Fatal(err)
	}
	unrestricted.ObjectAttributes.Restricted = false
	for name, tt := range map[string]struct {
		request Request
		trust   tpm.Endorsement
		want    string
	}{
		"another maker":               {good, newMaker(t).trust(), "by no manufacturer that is trusted"},
		"nobody is trusted":           {good, tpm.Endorsement{Now: time.Now()}, "no manufacturer"},
		"revoked":                     {good, m.trust(0xabc), "revoked"},
		"a certificate for AKs":       {Request{m.endorse(own.ek, 3), good.AKPublic}, m.trust(), "not for this purpose"},
		"another kind of key":         {Request{m.endorse(small.Public(), 1), good.AKPublic}, m.trust(), "2048"},
		"no certificate":              {Request{[]byte("x"), good.AKPublic}, m.trust(), "certificate"},
		"a key that signs everything": {Request{good.EKCertificate, tpm2.Marshal(unrestricted)}, m.trust(), "restricted"},
		"the endorsement key itself":  {Request{good.EKCertificate, tpm2.Marshal(tpm2.RSAEKTemplate)}, m.trust(), "restricted"},
		"no key":                      {Request{good.EKCertificate, nil}, m.trust(), "malformed"},
		"a long key":                  {Request{good.EKCertificate, make([]byte, maxPublic+1)}, m.trust(), "larger"},
	} {
		if _, _, err := Begin(tt.request, tt.trust); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	unlisted := m.trust()
	unlisted.Manufacturers[0].Bundle = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.cert.Raw})
	if _, _, err := Begin(good, unlisted); err == nil {
		t.Error("nobody waived the revocation list")
	}
	unlisted.UnsafeNoRevocation = true
	if _, _, err := Begin(good, unlisted); err != nil {
		t.Error(err)
	}
}

// A request is a stranger's.
func FuzzAttestationKey(f *testing.F) {
	f.Add(tpm2.Marshal(tpm2.RSAEKTemplate))
	f.Add([]byte{0, 1, 0, 11})
	f.Fuzz(func(t *testing.T, raw []byte) {
		spki, name, err := attestationKey(raw)
		if err != nil {
			return
		}
		if _, err := x509.ParsePKIXPublicKey(spki); err != nil || len(name) != 34 {
			t.Errorf("accepted %x as %x, %v", raw, spki, err)
		}
	})
}
