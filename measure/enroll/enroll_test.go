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

	"github.com/vouchsafe-cc/vouchsafe/measure/ek"
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

// chip is a real TPM in software, of which the maker certified the endorsement key
// of one kind.
type chip struct {
	*tpmdev.TPM
	open func() (transport.TPMCloser, error)
	kind ek.Template
	cert []byte
}

// newChip makes one.
func (m maker) newChip(t *testing.T, kind string) chip {
	t.Helper()
	k, err := ek.Find(kind)
	if err != nil {
		t.Fatal(err)
	}
	c := chip{open: swtpmtest.Start(t), kind: k}
	c.TPM = tpmdev.New(c.open)
	c.cert = m.endorse(swtpmtest.EndorsementKey(t, c.open, k.Public()), 1)
	swtpmtest.WriteNV(t, c.open, k.Index, c.cert)
	return c
}

// request is what the machine says.
func (c chip) request(t *testing.T) Request {
	t.Helper()
	kind, der, err := c.Endorsement(t.Context(), "")
	if err != nil || kind.Name != c.kind.Name || !bytes.Equal(der, c.cert) {
		t.Fatalf("an endorsement of kind %q, %v", kind.Name, err)
	}
	return Request{EKTemplate: kind.Name, EKCertificate: der, AKPublic: c.public(t)}
}

// answer has the TPM open a challenge.
func (c chip) answer(t *testing.T, challenge *Challenge) ([]byte, error) {
	t.Helper()
	kind, err := ek.Find(challenge.EKTemplate)
	if err != nil {
		t.Fatal(err)
	}
	return c.Activate(t.Context(), tpm.DefaultAK, kind, challenge.Credential, challenge.Secret)
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
	m := newMaker(t)
	for _, kind := range ek.Templates() {
		t.Run(kind.Name, func(t *testing.T) { testActivation(t, m, kind.Name) })
	}
}

func testActivation(t *testing.T, m maker, kind string) {
	own, other := m.newChip(t, kind), m.newChip(t, kind)
	request := own.request(t)
	challenge, pending, err := Begin(request, m.trust())
	if err != nil {
		t.Fatal(err)
	}
	opened, err := own.answer(t, challenge)
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
	if _, err := other.answer(t, challenge); err == nil {
		t.Error("another TPM opens the challenge")
	}
	// An endorsement key here, an attestation key there.
	request.AKPublic = other.public(t)
	mixed, _, err := Begin(request, m.trust())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]chip{"with the endorsement key": own, "with the attestation key": other} {
		if _, err := c.answer(t, mixed); err == nil {
			t.Errorf("the TPM %s alone opens the challenge", name)
		}
	}
	// The certificate of another TPM, and one that somebody changed.
	swtpmtest.WriteNV(t, own.open, own.kind.Index, other.cert)
	if _, _, err := own.Endorsement(t.Context(), ""); !errors.Is(err, ek.ErrMismatch) {
		t.Errorf("the certificate of another TPM: %v", err)
	}
	c, err := x509.ParseCertificate(own.cert)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(own.cert, c.RawSubjectPublicKeyInfo) + len(c.RawSubjectPublicKeyInfo)
	tampered := bytes.Clone(own.cert)
	tampered[at-8] ^= 1 // in the key
	swtpmtest.WriteNV(t, own.open, own.kind.Index, tampered)
	if _, _, err := own.Endorsement(t.Context(), ""); err == nil {
		t.Error("a certificate that was changed is taken from the TPM")
	}
	request.EKCertificate = tampered
	if _, _, err := Begin(request, m.trust()); err == nil {
		t.Error("a certificate that was changed is believed")
	}
}

// A key that the TPM makes from another template than the TCG's is not the one that
// a credential is made for, whoever certified it.
func TestAnotherTemplate(t *testing.T) {
	m := newMaker(t)
	own := m.newChip(t, "L-2")
	for name, change := range map[string]func(*tpm2.TPMTPublic){
		"a password":                 func(p *tpm2.TPMTPublic) { p.ObjectAttributes.UserWithAuth = true },
		"another policy":             func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = make([]byte, 32) },
		"a key that others can have": func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM, p.ObjectAttributes.FixedParent = false, false },
		"a nonce of the manufacturer": func(p *tpm2.TPMTPublic) {
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: []byte{1}}})
		},
	} {
		template := own.kind.Public()
		change(&template)
		swtpmtest.WriteNV(t, own.open, own.kind.Index, m.endorse(swtpmtest.EndorsementKey(t, own.open, template), 1))
		if _, _, err := own.Endorsement(t.Context(), ""); !errors.Is(err, ek.ErrMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	swtpmtest.WriteNV(t, own.open, own.kind.Overrides[0], []byte("nonce"))
	if _, _, err := own.Endorsement(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "0x1c0000b") {
		t.Errorf("nothing tells of the manufacturer's own template: %v", err)
	}
	// The right certificate, and a credential for a key of another kind.
	swtpmtest.WriteNV(t, own.open, own.kind.Index, own.cert)
	request := own.request(t)
	challenge, _, err := Begin(request, m.trust())
	if err != nil {
		t.Fatal(err)
	}
	challenge.EKTemplate = "H-2"
	if _, err := own.answer(t, challenge); err == nil {
		t.Error("the key of another template opens the challenge")
	}
}

// A TPM may have several; without any, or with none of the wanted kind, it says
// where it looked.
func TestWhichEndorsement(t *testing.T) {
	m := newMaker(t)
	own := m.newChip(t, "H-3")
	bare := tpmdev.New(swtpmtest.Start(t))
	if _, _, err := bare.Endorsement(t.Context(), ""); !errors.Is(err, tpmdev.ErrNoEndorsement) || !strings.Contains(err.Error(), "0x1c00002 (L-1, RSA 2048)") {
		t.Errorf("a TPM without certificates: %v", err)
	}
	if _, _, err := own.Endorsement(t.Context(), "L-2"); !errors.Is(err, tpmdev.ErrNoEndorsement) || strings.Contains(err.Error(), "L-1") {
		t.Errorf("another kind than there is: %v", err)
	}
	if _, _, err := own.Endorsement(t.Context(), "H-5"); !errors.Is(err, ek.ErrUnknown) {
		t.Errorf("a kind that is not built: %v", err)
	}
	second, err := ek.Find("L-2")
	if err != nil {
		t.Fatal(err)
	}
	swtpmtest.WriteNV(t, own.open, second.Index, m.endorse(swtpmtest.EndorsementKey(t, own.open, second.Public()), 1))
	for wanted, want := range map[string]string{"": "L-2", "L-2": "L-2", "H-3": "H-3"} {
		if kind, _, err := own.Endorsement(t.Context(), wanted); err != nil || kind.Name != want {
			t.Errorf("%q: %s, %v", wanted, kind.Name, err)
		}
	}
}

// An attestation key that another program made, named by SHA-384.
func TestNameOfSHA384(t *testing.T) {
	m := newMaker(t)
	own := m.newChip(t, "H-3")
	persistAK(t, own.open, tpm2.TPMAlgSHA384)
	challenge, pending, err := Begin(own.request(t), m.trust())
	if err != nil {
		t.Fatal(err)
	}
	opened, err := own.answer(t, challenge)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pending.Finish(Answer{opened}, time.Now()); err != nil {
		t.Error(err)
	}
}

func persistAK(t *testing.T, open func() (transport.TPMCloser, error), name tpm2.TPMAlgID) {
	t.Helper()
	dev, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgRSA, NameAlg: name,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048, Scheme: tpm2.TPMTRSAScheme{
				Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
			}}),
		}),
	}.Execute(dev)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth:         tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: tpm2.TPMHandle(tpm.DefaultAK),
	}.Execute(dev)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: made.ObjectHandle}).Execute(dev); err != nil {
		t.Fatal(err)
	}
}

// TPMs that another program manufactured, with its own reading of the profile: a
// certificate of RSA, of the size that it was told, and one of P-384.
func TestManufactured(t *testing.T) {
	for first, option := range map[string]string{"L-1": "--rsa-keysize=2048", "H-6": "--rsa-keysize=3072"} {
		socket, roots := swtpmtest.Manufactured(t, option)
		chip := tpmdev.New(tpmdev.File(socket))
		trust := tpm.Endorsement{Manufacturers: []tpm.Authority{{Name: "maker", Bundle: roots}}, UnsafeNoRevocation: true, Now: time.Now()}
		ak, err := chip.Public(t.Context(), tpm.DefaultAK)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{first, "H-3"} {
			kind, der, err := chip.Endorsement(t.Context(), name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			challenge, pending, err := Begin(Request{EKTemplate: kind.Name, EKCertificate: der, AKPublic: ak}, trust)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			opened, err := chip.Activate(t.Context(), tpm.DefaultAK, kind, challenge.Credential, challenge.Secret)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if _, err := pending.Finish(Answer{opened}, time.Now()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	m := newMaker(t)
	own := m.newChip(t, "L-1")
	good := own.request(t)
	endorsed, err := x509.ParseCertificate(own.cert)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*Request)) Request {
		r := good
		change(&r)
		return r
	}
	certificate := func(der []byte) Request { return with(func(r *Request) { r.EKCertificate = der }) }
	template := func(name string) Request { return with(func(r *Request) { r.EKTemplate = name }) }
	public := func(raw []byte) Request { return with(func(r *Request) { r.AKPublic = raw }) }
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
		"a certificate for AKs":       {certificate(m.endorse(endorsed.PublicKey, 3)), m.trust(), "not for this purpose"},
		"another kind of key":         {certificate(m.endorse(small.Public(), 1)), m.trust(), "2048"},
		"no certificate":              {certificate([]byte("x")), m.trust(), "certificate"},
		"another template":            {template("L-2"), m.trust(), "another key"},
		"no template":                 {template(""), m.trust(), "not built"},
		"a template that is unknown":  {template("H-5"), m.trust(), "not built"},
		"a key that signs everything": {public(tpm2.Marshal(unrestricted)), m.trust(), "restricted"},
		"the endorsement key itself":  {public(tpm2.Marshal(tpm2.RSAEKTemplate)), m.trust(), "restricted"},
		"no key":                      {public(nil), m.trust(), "malformed"},
		"a long key":                  {public(make([]byte, maxPublic+1)), m.trust(), "larger"},
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
		if _, err := x509.ParsePKIXPublicKey(spki); err != nil || len(name) != 34 && len(name) != 50 {
			t.Errorf("accepted %x as %x, %v", raw, spki, err)
		}
	})
}
