// Package ek has the kinds of endorsement keys that TPMs come with: the default
// templates of the TCG EK Credential Profile for TPM Family 2.0, version 2.6,
// annex B.
//
// A TPM makes the same key from the same template again, out of a seed that it
// was born with, and another from any other. The manufacturer's certificate holds
// the public key alone; what the key is for is in the template. So a template
// that is not the manufacturer's, in one bit, makes a key that no certificate is
// of.
package ek

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

// A Template is one kind of endorsement key.
type Template struct {
	// Name is the TCG's, such as "L-1".
	Name string
	// Index is the NV index of the key's certificate. What a manufacturer
	// changed of the template, if it did, is in the indices of Overrides.
	Index     uint32
	Overrides []uint32

	high  bool // of the high range
	bits  int  // of RSA; 0 for a key on a curve
	curve tpm2.TPMECCCurve
	hash  tpm2.TPMAlgID // the name's
	aes   uint16        // bits
}

// Templates returns all that are built, those that most TPMs have a certificate
// for first. What the profile has beyond them, SM2 (H-5) and RSA 4096 (H-7), swtpm
// does not make, so that nothing of it was tried.
func Templates() []Template {
	return []Template{
		{Name: "L-1", Index: 0x01c00002, Overrides: []uint32{0x01c00003, 0x01c00004}, bits: 2048, hash: tpm2.TPMAlgSHA256, aes: 128},
		{Name: "L-2", Index: 0x01c0000a, Overrides: []uint32{0x01c0000b, 0x01c0000c}, curve: tpm2.TPMECCNistP256, hash: tpm2.TPMAlgSHA256, aes: 128},
		{Name: "H-1", Index: 0x01c00012, Overrides: []uint32{0x01c00013}, high: true, bits: 2048, hash: tpm2.TPMAlgSHA256, aes: 128},
		{Name: "H-2", Index: 0x01c00014, Overrides: []uint32{0x01c00015}, high: true, curve: tpm2.TPMECCNistP256, hash: tpm2.TPMAlgSHA256, aes: 128},
		{Name: "H-3", Index: 0x01c00016, Overrides: []uint32{0x01c00017}, high: true, curve: tpm2.TPMECCNistP384, hash: tpm2.TPMAlgSHA384, aes: 256},
		{Name: "H-4", Index: 0x01c00018, Overrides: []uint32{0x01c00019}, high: true, curve: tpm2.TPMECCNistP521, hash: tpm2.TPMAlgSHA512, aes: 256},
		{Name: "H-6", Index: 0x01c0001c, Overrides: []uint32{0x01c0001d}, high: true, bits: 3072, hash: tpm2.TPMAlgSHA384, aes: 256},
	}
}

// ErrUnknown means that a key is of a kind that is not built.
var ErrUnknown = errors.New("a kind of endorsement key that is not built")

// ErrMismatch means that a key is not of the kind, or not the one, that it is
// said to be.
var ErrMismatch = errors.New("is another key")

// Find returns the template of a name. For a name that has none the error wraps
// [ErrUnknown] and says what there is.
func Find(name string) (Template, error) {
	var names []string
	for _, t := range Templates() {
		if t.Name == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	return Template{}, fmt.Errorf("%w: template %q, not one of %s", ErrUnknown, name, strings.Join(names, ", "))
}

// Kind says in words what a key of the template is, such as "RSA 2048".
func (t Template) Kind() string {
	if curve, ok := curves[t.curve]; ok {
		return "ECC " + curve.Params().Name
	}
	return fmt.Sprintf("RSA %d", t.bits)
}

// Public is the public area that a TPM makes the key from.
func (t Template) Public() tpm2.TPMTPublic {
	p := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: t.hash,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: t.high, AdminWithPolicy: true,
			Restricted: true, Decrypt: true,
		},
	}
	policies := policyA
	if t.high {
		policies = policyB
	}
	p.AuthPolicy.Buffer, _ = hex.DecodeString(policies[t.hash]) // constants
	symmetric := tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(t.aes)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
	// The low range fills the key's place with zeros, the high range leaves it empty.
	zeros := func(n int) []byte {
		if t.high {
			return nil
		}
		return make([]byte, n)
	}
	if t.bits != 0 {
		p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: symmetric, KeyBits: tpm2.TPMIRSAKeyBits(t.bits)}) //nolint:gosec // small
		p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: zeros(t.bits / 8)})
		return p
	}
	p.Type = tpm2.TPMAlgECC
	p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: symmetric, CurveID: t.curve})
	p.Unique = point(zeros(32), zeros(32)) // P-256 is the low range's one curve
	return p
}

// The policies of the profile, by the algorithm that they are computed with: A asks
// for the authorisation of the endorsement hierarchy (TPM2_PolicySecret), B for
// that or for what an NV index of the owner says (TPM2_PolicyAuthorizeNV).
var (
	policyA = map[tpm2.TPMAlgID]string{
		tpm2.TPMAlgSHA256: "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa",
	}
	policyB = map[tpm2.TPMAlgID]string{
		tpm2.TPMAlgSHA256: "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0",
		tpm2.TPMAlgSHA384: "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12",
		tpm2.TPMAlgSHA512: "b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a429c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea",
	}
)

// Password reports whether a key of the template is used with its password, which
// is empty. The low range's asks for policy A.
func (t Template) Password() bool { return t.high }

func point(x, y []byte) tpm2.TPMUPublicID {
	return tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y}})
}

// Encapsulation is the key of a certificate for what only its TPM should open
// (TPM 2.0 Library, Part 1, annexes B.10 and C.6). A key of another kind than the
// template's is refused with [ErrMismatch].
func (t Template) Encapsulation(c *x509.Certificate) (tpm2.LabeledEncapsulationKey, error) {
	public := t.Public()
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		// A template says nothing of the exponent, which then is 65537.
		if t.bits == 0 || key.N.BitLen() != t.bits || key.E != 65537 {
			return nil, fmt.Errorf("the certificate's, of RSA with %d bits, %w than one of template %s, %s", key.N.BitLen(), ErrMismatch, t.Name, t.Kind())
		}
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()})
	case *ecdsa.PublicKey:
		if key.Curve != curves[t.curve] {
			return nil, fmt.Errorf("the certificate's, on %s, %w than one of template %s, %s", key.Curve.Params().Name, ErrMismatch, t.Name, t.Kind())
		}
		raw, err := key.Bytes() // 4, X and Y: checked to be on the curve
		if err != nil {
			return nil, err
		}
		half := len(raw) / 2
		public.Unique = point(raw[1:1+half], raw[1+half:])
	default:
		return nil, fmt.Errorf("%w: its certificate says %s, which is neither RSA nor on a curve that is known", ErrUnknown, c.PublicKeyAlgorithm)
	}
	return tpm2.ImportEncapsulationKey(&public)
}

var curves = map[tpm2.TPMECCCurve]elliptic.Curve{
	tpm2.TPMECCNistP256: elliptic.P256(), tpm2.TPMECCNistP384: elliptic.P384(), tpm2.TPMECCNistP521: elliptic.P521(),
}

// Certified checks that the public area of a key, which a TPM says it made from
// the template, is that of the key of a certificate, and in all else what the
// template says. Otherwise the error wraps [ErrMismatch].
func (t Template) Certified(c *x509.Certificate, made *tpm2.TPMTPublic) error {
	want := t.Public()
	if made.Type != want.Type {
		return fmt.Errorf("what the TPM made %w than one of template %s, %s", ErrMismatch, t.Name, t.Kind())
	}
	key, err := tpm2.Pub(*made)
	if err != nil {
		return err
	}
	certified, ok := c.PublicKey.(interface{ Equal(x crypto.PublicKey) bool })
	if !ok || !certified.Equal(key) {
		return fmt.Errorf("what the certificate is of %w than the one that this TPM makes of template %s, %s", ErrMismatch, t.Name, t.Kind())
	}
	want.Unique = made.Unique
	if !bytes.Equal(tpm2.Marshal(want), tpm2.Marshal(made)) {
		return fmt.Errorf("what the TPM made %w than one of template %s, though it has the certificate's key", ErrMismatch, t.Name)
	}
	return nil
}
