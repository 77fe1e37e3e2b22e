package snp

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-sev-guest/verify/trust"
)

// SimulatedRoot is a vendor of one's own, trusted because a configuration
// names it. [CreateVendor] writes such a bundle as root.pem.
type SimulatedRoot struct {
	// Name appears in verdicts, claims and tokens. Names must differ and must
	// not start with "AMD".
	Name string
	// Bundle is PEM: the ARK certificate, the ASK certificate, the ASVK
	// certificate if the vendor lends keys, and, unless revocation is waived, a
	// CRL of the ARK ("X509 CRL").
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
	ark        *x509.Certificate
	ask        *x509.Certificate    // signs the certificates of chips' keys (VCEK)
	asvk       *x509.Certificate    // and of lent keys (VLEK); nil for a vendor that lends none
	crl        *x509.RevocationList // nil if none was configured
}

// signer returns the certificate whose key signs leaves of a kind, nil if
// there is none.
func (r *root) signer(k SigningKey) *x509.Certificate {
	switch k {
	case VCEK:
		return r.ask
	case VLEK:
		return r.asvk
	case Unsigned:
	}
	return nil
}

// signerName is how AMD names the certificate that signs leaves of a kind.
func signerName(k SigningKey, g Generation) string {
	if k == VLEK {
		return "SEV-VLEK-" + string(g)
	}
	return "SEV-" + string(g)
}

// newRoot checks everything about a root that does not depend on the time. The
// ASVK may be nil, and so may the list.
func newRoot(name string, simulated bool, ark, ask, asvk *x509.Certificate, crl *x509.RevocationList) (*root, error) {
	line, ok := strings.CutPrefix(ark.Subject.CommonName, "ARK-")
	if !ok {
		return nil, fmt.Errorf("the root certificate is named %q, want ARK- and a generation", ark.Subject.CommonName)
	}
	g, err := ParseGeneration(line)
	if err != nil {
		return nil, fmt.Errorf("root certificate: %w", err)
	}
	r := &root{name: name, simulated: simulated, generation: g, ark: ark, crl: crl}
	if err := r.signed(ark); err != nil {
		return nil, err
	}
	if r.ask, err = r.accept(ask, VCEK); err != nil {
		return nil, err
	}
	if asvk != nil {
		if r.asvk, err = r.accept(asvk, VLEK); err != nil {
			return nil, err
		}
	}
	if crl != nil {
		if err := r.vouches(crl); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// accept takes a certificate as the one that signs leaves of a kind, if the
// root signed it for that.
func (r *root) accept(c *x509.Certificate, k SigningKey) (*x509.Certificate, error) {
	if want := signerName(k, r.generation); c.Subject.CommonName != want {
		return nil, fmt.Errorf("the signing certificate is named %q, want %q", c.Subject.CommonName, want)
	}
	return c, r.signed(c)
}

// signed checks that the root signed a certificate.
func (r *root) signed(c *x509.Certificate) error {
	if c.SignatureAlgorithm != x509.SHA384WithRSAPSS {
		return fmt.Errorf("%s is signed with %s, want RSASSA-PSS and SHA-384", c.Subject.CommonName, c.SignatureAlgorithm)
	}
	if err := issued(c, r.ark); err != nil {
		return fmt.Errorf("%s is not signed by the root: %w", c.Subject.CommonName, err)
	}
	return nil
}

// vouches checks that the root signed a revocation list.
func (r *root) vouches(crl *x509.RevocationList) error {
	if !bytes.Equal(crl.RawIssuer, r.ark.RawSubject) {
		return fmt.Errorf("the revocation list is not signed by the root: it is of %q", crl.Issuer)
	}
	if err := crl.CheckSignatureFrom(r.ark); err != nil {
		return fmt.Errorf("the revocation list is not signed by the root: %w", err)
	}
	return nil
}

// issued checks name and signature. CheckSignatureFrom alone looks at the key,
// and one key may have certificates for two purposes.
func issued(c, issuer *x509.Certificate) error {
	if !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("its issuer is %q, not %q", c.Issuer, issuer.Subject)
	}
	return c.CheckSignatureFrom(issuer)
}

// embedded returns the certificates of a generation as AMD publishes them, one
// chain for chips' keys and one for lent keys. Both must end in one root.
func embedded(g Generation) (*trust.ProductCerts, error) {
	own, lent := trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes
	switch g {
	case Milan:
	case Genoa:
		own, lent = trust.AskArkGenoaVcekBytes, trust.AskArkGenoaVlekBytes
	case Turin:
		own, lent = trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes
	}
	var chips, clouds trust.ProductCerts
	if err := errors.Join(chips.FromKDSCertBytes(bytes.TrimSpace(own)), clouds.FromKDSCertBytes(bytes.TrimSpace(lent))); err != nil {
		return nil, err
	}
	if !chips.Ark.Equal(clouds.Ark) {
		return nil, errors.New("the two chains end in different roots")
	}
	chips.Asvk = clouds.Asvk
	return &chips, nil
}

// amdRoots returns the roots of AMD that the library embeds.
func amdRoots(crls map[Generation][]byte) ([]*root, error) {
	var roots []*root
	for _, g := range Generations() {
		certs, err := embedded(g)
		if err != nil {
			return nil, fmt.Errorf("AMD %s: %w", g, err)
		}
		var crl *x509.RevocationList
		if raw, ok := crls[g]; ok {
			if crl, err = parseCRL(raw); err != nil {
				return nil, fmt.Errorf("revocation list of AMD %s: %w", g, err)
			}
		}
		r, err := newRoot("AMD "+string(g), false, certs.Ark, certs.Ask, certs.Asvk, crl)
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

// parseBundle reads the PEM of a simulated root: ARK, ASK, at most one ASVK
// and at most one revocation list.
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
	switch len(certs) {
	case 2:
		return newRoot(name, true, certs[0], certs[1], nil, crl)
	case 3:
		return newRoot(name, true, certs[0], certs[1], certs[2], crl)
	}
	return nil, fmt.Errorf("the bundle has %d certificates, want ARK, ASK and perhaps ASVK", len(certs))
}

// sameKey reports whether a certificate carries the key of another.
func sameKey(a, b *x509.Certificate) bool {
	k, ok := a.PublicKey.(*rsa.PublicKey)
	return ok && k.Equal(b.PublicKey)
}

// Authorities returns the certificates whose keys may have signed what AMD and
// the named vendors publish: lists, chains and certificates of chips. Who
// fetches or keeps such things checks them against these.
func Authorities(simulated []SimulatedRoot) ([]*x509.Certificate, error) {
	all, err := allRoots(nil, simulated)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, r := range all {
		out = append(out, r.ark, r.ask)
		if r.asvk != nil {
			out = append(out, r.asvk)
		}
	}
	return out, nil
}

// allRoots returns AMD's roots and those that a configuration names.
func allRoots(crls map[Generation][]byte, simulated []SimulatedRoot) ([]*root, error) {
	all, err := amdRoots(crls)
	if err != nil {
		return nil, err
	}
	amd, seen := all, map[string]bool{}
	for _, s := range simulated {
		r, err := simulatedRoot(s)
		if err != nil {
			return nil, err
		}
		if seen[r.name] {
			return nil, fmt.Errorf("two simulated roots are named %q", r.name)
		}
		seen[r.name] = true
		for _, genuine := range amd {
			if sameKey(genuine.ark, r.ark) {
				return nil, fmt.Errorf("simulated root %q is the root of %s", r.name, genuine.name)
			}
		}
		all = append(all, r)
	}
	return all, nil
}
