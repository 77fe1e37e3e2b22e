package tpm

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	pemCertificate = "CERTIFICATE"
	pemCRL         = "X509 CRL"
	pemPublicKey   = "PUBLIC KEY"
)

// Authority is a CA that certifies attestation keys: a privacy CA, which makes
// sure that the key lives in the TPM of an endorsement key before it does. Also
// a TPM manufacturer, where endorsement keys are checked.
type Authority struct {
	// Name appears in verdicts and claims. Names must differ.
	Name string
	// Bundle is PEM: self-signed roots, any intermediate certificates, and,
	// unless revocation is waived, a CRL of each issuer ("X509 CRL").
	Bundle []byte
}

// OIDs of the TCG (EK Credential Profile 2.6, section 3.5.1).
var (
	oidEKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 1}
	oidAKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 3}
	oidAltName       = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// maxBundle bounds the blocks of a bundle, and the keys that are enrolled in
// one file.
const maxBundle = 1 << 16

// authority is a checked [Authority].
type authority struct {
	name                 string
	simulated            bool
	roots, intermediates *x509.CertPool
	certificates         []*x509.Certificate
	crls                 []revocations
}

// revocations is a list and the certificate that was found to have signed it.
type revocations struct {
	*x509.RevocationList
	issuer *x509.Certificate
}

// by reports whether the holder of a certificate signed the list.
func (r revocations) by(c *x509.Certificate) bool {
	return r.issuer.Equal(c) || bytes.Equal(r.RawIssuer, c.RawSubject) && r.CheckSignatureFrom(c) == nil
}

func newAuthority(a Authority, simulated bool) (*authority, error) {
	if a.Name == "" {
		return nil, errors.New("an authority needs a name")
	}
	out := &authority{name: a.Name, simulated: simulated, roots: x509.NewCertPool(), intermediates: x509.NewCertPool()}
	if err := out.read(a.Bundle); err != nil {
		return nil, fmt.Errorf("authority %q: %w", a.Name, err)
	}
	return out, nil
}

func (a *authority) read(bundle []byte) error {
	roots := 0
	var lists []*x509.RevocationList
	blocks, err := pemBlocks(bundle)
	if err != nil {
		return err
	}
	for _, block := range blocks {
		switch block.Type {
		case pemCertificate:
			c, err := parseCertificate(block.Bytes)
			if err != nil {
				return err
			}
			if !c.IsCA {
				return fmt.Errorf("the certificate of %s is not one of a CA", c.Subject)
			}
			a.certificates = append(a.certificates, c)
			if c.CheckSignatureFrom(c) == nil {
				a.roots.AddCert(c)
				roots++
			} else {
				a.intermediates.AddCert(c)
			}
		case pemCRL:
			l, err := x509.ParseRevocationList(block.Bytes)
			if err != nil {
				return err
			}
			lists = append(lists, l)
		default:
			return fmt.Errorf("unexpected PEM block %q", block.Type)
		}
	}
	if roots == 0 {
		return errors.New("the bundle has no self-signed root")
	}
	for _, l := range lists {
		issuer := a.issuer(l)
		if issuer == nil {
			return fmt.Errorf("the revocation list of %s is signed by none of the certificates", l.Issuer)
		}
		a.crls = append(a.crls, revocations{l, issuer})
	}
	return nil
}

func (a *authority) issuer(l *x509.RevocationList) *x509.Certificate {
	for _, c := range a.certificates {
		if l.CheckSignatureFrom(c) == nil {
			return c
		}
	}
	return nil
}

// simulatedMark starts the serial number in the name of every certificate that
// the simulator makes.
const simulatedMark = "simulated-"

// headerSimulated is the header in the PEM of a key that the simulator made.
const headerSimulated = "Simulated-Tpm"

// saysSimulated reports whether a simulator made one of these certificates. As
// real authorities they are refused, for it must be a mistake.
func saysSimulated(certs ...*x509.Certificate) bool {
	return slices.ContainsFunc(certs, func(c *x509.Certificate) bool {
		return strings.HasPrefix(c.Subject.SerialNumber, simulatedMark) || strings.HasPrefix(c.Issuer.SerialNumber, simulatedMark)
	})
}

func pemBlocks(raw []byte) ([]*pem.Block, error) {
	var out []*pem.Block
	for rest := bytes.TrimSpace(raw); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		block, tail := pem.Decode(rest)
		if block == nil || len(out) == maxBundle {
			return nil, errors.New("this is not PEM, or too much of it")
		}
		rest = tail
		out = append(out, block)
	}
	return out, nil
}

// parseCertificate reads a certificate of a TPM. Those name the TPM in a
// critical alternative name that the standard library does not know; nothing
// here depends on it.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, oidAltName.Equal)
	return c, nil
}

// chain verifies a certificate for a purpose at a time, and returns the chain
// up to a root. More are certificates that came along with it.
func (a *authority) chain(leaf *x509.Certificate, more []*x509.Certificate, purpose asn1.ObjectIdentifier, now time.Time) ([]*x509.Certificate, error) {
	if !slices.ContainsFunc(leaf.UnknownExtKeyUsage, purpose.Equal) {
		return nil, fmt.Errorf("the certificate is not for this purpose: it lacks the key usage %s", purpose)
	}
	if leaf.IsCA {
		return nil, errors.New("the certificate is that of a CA, which is no key of a TPM")
	}
	intermediates := a.intermediates.Clone()
	for _, c := range more {
		// Whoever sends it chooses what verifying by its key costs, many times over.
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
			return nil, fmt.Errorf("the certificate of %s has an RSA key of %d bits, at most %d are accepted", c.Subject, key.N.BitLen(), maxRSABits)
		}
		intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		if slices.IndexFunc(chain[1:len(chain)-1], func(c *x509.Certificate) bool { return !serves(c, purpose) }) < 0 {
			return chain, nil
		}
	}
	return nil, fmt.Errorf("a CA above the certificate is only for other purposes: it lacks the key usage %s", purpose)
}

// serves reports whether a CA may certify for a purpose: one that names purposes
// is for no others. The standard library asks so only of purposes that it knows.
func serves(ca *x509.Certificate, purpose asn1.ObjectIdentifier) bool {
	return len(ca.ExtKeyUsage)+len(ca.UnknownExtKeyUsage) == 0 ||
		slices.Contains(ca.ExtKeyUsage, x509.ExtKeyUsageAny) || slices.ContainsFunc(ca.UnknownExtKeyUsage, purpose.Equal)
}

// errRevoked is a certificate that its issuer took back. No waiver covers it.
var errRevoked = errors.New("is revoked")

var errNoList = errors.New("there is no revocation list")

// revocation looks every certificate of a chain up in the current list of its
// issuer. An issuer without one is an error; so is a list of the wrong time.
func (a *authority) revocation(chain []*x509.Certificate, now time.Time) error {
	var errs []error
	for i, c := range chain[:len(chain)-1] {
		err := errNoList
		for _, l := range a.crls {
			if !l.by(chain[i+1]) {
				continue
			}
			if slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.SerialNumber) == 0 }) {
				return fmt.Errorf("the certificate of %s %w", c.Subject, errRevoked)
			}
			if now.Before(l.ThisUpdate) || now.After(l.NextUpdate) {
				err = fmt.Errorf("the revocation list of %s is for %s to %s", c.Issuer, l.ThisUpdate.Format(time.RFC3339), l.NextUpdate.Format(time.RFC3339))
				continue
			}
			err = nil
			break
		}
		if errors.Is(err, errNoList) {
			err = fmt.Errorf("%w of %s", err, c.Issuer)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// fingerprint names a certificate for people.
func fingerprint(c *x509.Certificate) string {
	return fmt.Sprintf("%s, SHA-256 %x", c.Subject, sha256.Sum256(c.Raw))
}
