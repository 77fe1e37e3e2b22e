// Package enroll finds out whether an attestation key lives in a genuine TPM, so
// that its owner can enrol it (ADR 18, ADR 41): by credential activation (TPM 2.0
// Library, Part 1, section 24).
//
// The manufacturer's certificate vouches for the endorsement key (EK), which
// cannot sign. So the enroller encrypts a secret to the EK together with the name
// of the attestation key (AK), which is the digest of all that the key may do.
// The TPM of that EK gives the secret out only while a key of that name is loaded
// beside it. Whoever answers with the secret has both in one TPM.
//
// It takes two messages to the TPM's machine and two back; they may travel as
// files, and need not be kept secret, but for [Pending].
package enroll

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/vouchsafe-cc/vouchsafe/measure/ek"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// Request is what the machine with the TPM says of its keys. Nobody has checked
// any of it.
type Request struct {
	EKTemplate    string `json:"ek_template"`    // name of one of [ek.Templates]
	EKCertificate []byte `json:"ek_certificate"` // DER
	AKPublic      []byte `json:"ak_public"`      // TPMT_PUBLIC
}

// Challenge is for that machine's TPM.
type Challenge struct {
	EKTemplate string `json:"ek_template"` // of the endorsement key that opens it
	Credential []byte `json:"credential"`  // TPMS_ID_OBJECT
	Secret     []byte `json:"secret"`      // encrypted to the EK
}

// Answer is what the TPM made of the challenge.
type Answer struct {
	Secret []byte `json:"secret"`
}

// Pending is what the enroller keeps between challenge and answer. Who knows the
// answer beforehand needs no TPM: it holds its digest only.
type Pending struct {
	Manufacturer string    `json:"manufacturer"`
	EK           string    `json:"ek"`     // serial number of its certificate
	AK           []byte    `json:"ak"`     // SubjectPublicKeyInfo
	Answer       []byte    `json:"answer"` // SHA-256
	Expires      time.Time `json:"expires"`
}

// patience is how long a challenge can be answered.
const patience = time.Hour

// secretSize is that of the secret in bytes; the digest of both keys' names
// bounds it.
const secretSize = 32

// maxPublic bounds a TPMT_PUBLIC in bytes.
const maxPublic = 1 << 10

// An attestation key as TPMs make them, in bits.
const (
	minBits = 2048
	maxBits = 4096
)

// Begin checks a request and makes the challenge for it. A key that could sign
// what its TPM did not say is refused, whoever made it.
func Begin(r Request, trust tpm.Endorsement) (*Challenge, *Pending, error) {
	cert, manufacturer, err := trust.Check(r.EKCertificate)
	if err != nil {
		return nil, nil, err
	}
	kind, err := ek.Find(r.EKTemplate)
	if err != nil {
		return nil, nil, fmt.Errorf("the endorsement key: %w", err)
	}
	// Of the template only what a credential is made with counts here. That the
	// key is what the template says is what the certificate means.
	endorsement, err := kind.Encapsulation(cert)
	if err != nil {
		return nil, nil, fmt.Errorf("the endorsement key: %w", err)
	}
	ak, name, err := attestationKey(r.AKPublic)
	if err != nil {
		return nil, nil, fmt.Errorf("the attestation key: %w", err)
	}
	secret := make([]byte, secretSize)
	rand.Read(secret) // crypto/rand.Read never fails
	credential, encrypted, err := tpm2.CreateCredential(rand.Reader, endorsement, name, secret)
	if err != nil {
		return nil, nil, fmt.Errorf("make the credential: %w", err)
	}
	sum := sha256.Sum256(secret)
	return &Challenge{kind.Name, credential, encrypted}, &Pending{
		Manufacturer: manufacturer, EK: cert.SerialNumber.Text(16), AK: ak, Answer: sum[:], Expires: trust.Now.Add(patience),
	}, nil
}

// ErrAnswer means that the machine did not show that it has both keys in one TPM.
var ErrAnswer = errors.New("the answer is not that of a TPM with both keys")

// Finish returns the key in PEM, as a broker's enrolled_keys takes it.
func (p *Pending) Finish(a Answer, now time.Time) ([]byte, error) {
	if now.After(p.Expires) {
		return nil, fmt.Errorf("the challenge could be answered until %s", p.Expires.Format(time.RFC3339))
	}
	sum := sha256.Sum256(a.Secret)
	if len(p.Answer) != len(sum) || subtle.ConstantTimeCompare(sum[:], p.Answer) != 1 {
		return nil, ErrAnswer
	}
	if _, err := x509.ParsePKIXPublicKey(p.AK); err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: p.AK}), nil
}

// attestationKey checks the public area and returns the key and its name.
func attestationKey(raw []byte) (spki, name []byte, err error) {
	if len(raw) > maxPublic {
		return nil, nil, errors.New("is larger than a public area can be")
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
	if err != nil {
		return nil, nil, fmt.Errorf("is malformed: %w", err)
	}
	o := public.ObjectAttributes
	if !o.Restricted || !o.SignEncrypt || o.Decrypt || !o.FixedTPM || !o.FixedParent || !o.SensitiveDataOrigin {
		return nil, nil, errors.New("must be a restricted signing key that was made in the TPM and never leaves it")
	}
	if public.Type != tpm2.TPMAlgRSA || public.NameAlg != tpm2.TPMAlgSHA256 && public.NameAlg != tpm2.TPMAlgSHA384 {
		return nil, nil, errors.New("must be of RSA, which evidence on the wire is signed by, and named by SHA-256 or SHA-384")
	}
	parms, err := public.Parameters.RSADetail()
	if err != nil {
		return nil, nil, err
	}
	unique, err := public.Unique.RSA()
	if err != nil {
		return nil, nil, err
	}
	key, err := tpm2.RSAPub(parms, unique)
	if err != nil {
		return nil, nil, err
	}
	// The numbers are the asker's: crypto/x509 writes keys that it does not read.
	if bits := key.N.BitLen(); bits < minBits || bits > maxBits || key.N.Bit(0) == 0 || key.E < 3 || key.E%2 == 0 {
		return nil, nil, fmt.Errorf("must be an RSA key of %d to %d bits, with odd numbers", minBits, maxBits)
	}
	if spki, err = x509.MarshalPKIXPublicKey(key); err != nil {
		return nil, nil, err
	}
	id, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, nil, err
	}
	return spki, id.Buffer, nil
}
