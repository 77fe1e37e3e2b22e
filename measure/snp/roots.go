package snp

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-sev-guest/verify/trust"
)

// SimulatedRoot is a vendor of one's own, trusted because a configuration
// names it. [CreateVendor] writes such a bundle as root.pem.
type SimulatedRoot struct {
	// Name appears in verdicts, claims and tokens. Names must differ and must
	// not start with "AMD".
	Name string
	// Bundle is PEM: the ARK and the ASK certificate and, unless revocation is
	// waived, a CRL of the ARK ("X509 CRL").
	Bundle []byte
}

const (
	pemCertificate = "CERTIFICATE"
	pemCRL         = "X509 CRL"
)

// root is a vendor root with what is needed to judge a chain under it. It does
// not change after it was made.
type root struct {
	name       string
	simulated  bool
	generation Generation
	ark, ask   *x509.Certificate
	crl        *x509.RevocationList // nil if none was configured
}

// newRoot checks everything about a root that does not depend on the time.
func newRoot(name string, simulated bool, ark, ask *x509.Certificate, crl *x509.RevocationList) (*root, error) {
	line, ok := strings.CutPrefix(ark.Subject.CommonName, "ARK-")
	if !ok {
		return nil, fmt.Errorf("the root certificate is named %q, want ARK- and a generation", ark.Subject.CommonName)
	}
	g, err := ParseGeneration(line)
	if err != nil {
		return nil, fmt.Errorf("root certificate: %w", err)
	}
	if want := "SEV-" + line; ask.Subject.CommonName != want {
		return nil, fmt.Errorf("the signing certificate is named %q, want %q", ask.Subject.CommonName, want)
	}
	for _, c := range []*x509.Certificate{ark, ask} {
		if c.SignatureAlgorithm != x509.SHA384WithRSAPSS {
			return nil, fmt.Errorf("%s is signed with %s, want RSASSA-PSS and SHA-384", c.Subject.CommonName, c.SignatureAlgorithm)
		}
		if err := c.CheckSignatureFrom(ark); err != nil {
			return nil, fmt.Errorf("%s is not signed by the root: %w", c.Subject.CommonName, err)
		}
	}
	if crl != nil {
		if err := crl.CheckSignatureFrom(ark); err != nil {
			return nil, fmt.Errorf("the revocation list is not signed by the root: %w", err)
		}
	}
	return &root{name: name, simulated: simulated, generation: g, ark: ark, ask: ask, crl: crl}, nil
}

// amdRoots returns the roots of AMD that the library embeds.
func amdRoots(crls map[Generation][]byte) ([]*root, error) {
	var roots []*root
	for _, g := range Generations() {
		embedded, err := trust.GetDefaultRootCerts(string(g))
		if err != nil {
			return nil, err
		}
		var crl *x509.RevocationList
		if raw, ok := crls[g]; ok {
			if crl, err = parseCRL(raw); err != nil {
				return nil, fmt.Errorf("revocation list of AMD %s: %w", g, err)
			}
		}
		r, err := newRoot("AMD "+string(g), false, embedded.ProductCerts.Ark, embedded.ProductCerts.Ask, crl)
		if err != nil {
			return nil, fmt.Errorf("AMD %s: %w", g, err)
		}
		roots = append(roots, r)
	}
	return roots, nil
}

// parseCRL reads a revocation list in DER or PEM.
func parseCRL(raw []byte) (*x509.RevocationList, error) {
	if block, rest := pem.Decode(raw); block != nil {
		if block.Type != pemCRL || len(bytes.TrimSpace(rest)) != 0 {
			return nil, fmt.Errorf("want one PEM block %q", pemCRL)
		}
		raw = block.Bytes
	}
	return x509.ParseRevocationList(raw)
}

// simulatedRoot reads the root that a configuration names.
func simulatedRoot(s SimulatedRoot) (*root, error) {
	if s.Name == "" || strings.HasPrefix(strings.ToUpper(s.Name), "AMD") {
		return nil, fmt.Errorf("a simulated root needs a name that does not start with AMD, got %q", s.Name)
	}
	r, err := parseBundle(s.Name, s.Bundle)
	if err != nil {
		return nil, fmt.Errorf("simulated root %q: %w", s.Name, err)
	}
	return r, nil
}

// parseBundle reads the PEM of a simulated root: ARK, ASK, and at most one
// revocation list.
func parseBundle(name string, bundle []byte) (*root, error) {
	var (
		certs []*x509.Certificate
		crl   *x509.RevocationList
	)
	for rest := bytes.TrimSpace(bundle); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		block, tail := pem.Decode(rest)
		if block == nil {
			return nil, errors.New("the bundle is not PEM")
		}
		rest = tail
		var err error
		switch {
		case block.Type == pemCertificate:
			var c *x509.Certificate
			c, err = x509.ParseCertificate(block.Bytes)
			certs = append(certs, c)
		case block.Type == pemCRL && crl == nil:
			crl, err = x509.ParseRevocationList(block.Bytes)
		default:
			err = fmt.Errorf("unexpected PEM block %q", block.Type)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(certs) != 2 {
		return nil, fmt.Errorf("the bundle has %d certificates, want ARK and ASK", len(certs))
	}
	return newRoot(name, true, certs[0], certs[1], crl)
}

// errRevoked is an ASK that its root took back. No waiver covers it.
var errRevoked = errors.New("the signing key (ASK) is revoked")

// checkRevocation looks the ASK up in the root's list. AMD revokes signing
// keys, never a chip's certificate: those all have the serial number 0, and a
// newer TCB supersedes them.
func (r *root) checkRevocation(now time.Time) error {
	if r.crl == nil {
		return fmt.Errorf("no revocation list of %s is configured", r.name)
	}
	for _, entry := range r.crl.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(r.ask.SerialNumber) == 0 {
			return fmt.Errorf("%w since %s", errRevoked, entry.RevocationTime.Format(time.RFC3339))
		}
	}
	switch {
	case now.Before(r.crl.ThisUpdate):
		return fmt.Errorf("the revocation list of %s is from %s, after the time of verification", r.name, r.crl.ThisUpdate.Format(time.RFC3339))
	case now.After(r.crl.NextUpdate): // a list without next update is never current
		return fmt.Errorf("the revocation list of %s was to be renewed by %s", r.name, r.crl.NextUpdate.Format(time.RFC3339))
	}
	return nil
}

// library returns the root in the form of go-sev-guest.
func (r *root) library() *trust.AMDRootCerts {
	return &trust.AMDRootCerts{
		ProductLine:  string(r.generation),
		ProductCerts: &trust.ProductCerts{Ark: r.ark, Ask: r.ask},
	}
}

// sameKey reports whether a certificate carries the key of another.
func sameKey(a, b *x509.Certificate) bool {
	k, ok := a.PublicKey.(*rsa.PublicKey)
	return ok && k.Equal(b.PublicKey)
}
