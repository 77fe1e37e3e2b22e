package dcap

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// intelRoot is the certificate of Intel's SGX root CA, which also signs for
// TDX. intelRootSum is its SHA-256, as Intel publishes it.
//
//go:embed intel-sgx-root-ca.pem
var intelRoot []byte

const intelRootSum = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"

// SimulatedRoot is a vendor of one's own, trusted because a configuration
// names it. [CreateVendor] writes such a certificate as root.pem.
type SimulatedRoot struct {
	// Name appears in verdicts, claims and tokens. Names must differ and must
	// not start with "Intel".
	Name string
	// Bundle is PEM: the root certificate.
	Bundle []byte
}

const (
	pemCertificate = "CERTIFICATE"
	pemCRL         = "X509 CRL"
)

// root is a trusted root. It does not change.
type root struct {
	name      string
	simulated bool
	cert      *x509.Certificate
	key       *ecdsa.PublicKey
}

func newRoot(name string, simulated bool, bundle []byte) (*root, error) {
	certs, err := parsePEM(bundle, 1)
	if err != nil {
		return nil, err
	}
	c := certs[0]
	key, err := p256(c)
	if err != nil {
		return nil, err
	}
	if c.Subject.CommonName != nameRoot {
		return nil, fmt.Errorf("the root certificate is named %q, want %q", c.Subject.CommonName, nameRoot)
	}
	if err := issued(c, c); err != nil {
		return nil, fmt.Errorf("the root certificate: %w", err)
	}
	return &root{name: name, simulated: simulated, cert: c, key: key}, nil
}

// trustedRoots returns Intel's root and those that the configuration names.
func trustedRoots(simulated []SimulatedRoot) ([]*root, error) {
	intel, err := newRoot(nameRoot, false, intelRoot)
	if err != nil {
		return nil, fmt.Errorf("embedded root: %w", err)
	}
	if sum := sha256.Sum256(intel.cert.Raw); hex.EncodeToString(sum[:]) != intelRootSum {
		return nil, errors.New("the embedded root is not Intel's")
	}
	roots := []*root{intel}
	for _, s := range simulated {
		if s.Name == "" || strings.HasPrefix(strings.ToUpper(s.Name), "INTEL") {
			return nil, fmt.Errorf("a simulated root needs a name that does not start with Intel, got %q", s.Name)
		}
		r, err := newRoot(s.Name, true, s.Bundle)
		if err != nil {
			return nil, fmt.Errorf("simulated root %q: %w", s.Name, err)
		}
		for _, o := range roots {
			if o.name == r.name {
				return nil, fmt.Errorf("two simulated roots are named %q", r.name)
			}
			if o.key.Equal(r.key) {
				return nil, fmt.Errorf("simulated root %q has the key of %s", r.name, o.name)
			}
		}
		roots = append(roots, r)
	}
	return roots, nil
}

// parsePEM reads exactly n certificates and nothing else. Quotes end their
// chain with a NUL, and drivers fill up with more.
func parsePEM(raw []byte, n int) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := raw; ; {
		rest = []byte(strings.Trim(string(rest), "\x00 \t\r\n"))
		if len(rest) == 0 {
			break
		}
		if !strings.HasPrefix(string(rest), "-----BEGIN "+pemCertificate+"-----") {
			return nil, errors.New("not a list of certificates in PEM")
		}
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil || len(block.Headers) > 0 {
			return nil, errors.New("not a list of certificates in PEM")
		}
		if len(certs) == n {
			return nil, fmt.Errorf("more than %d certificates", n)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs), err)
		}
		certs = append(certs, c)
	}
	if len(certs) != n {
		return nil, fmt.Errorf("%d certificates, want %d", len(certs), n)
	}
	return certs, nil
}

// p256 returns a certificate's key, which must be on P-256.
func p256(c *x509.Certificate) (*ecdsa.PublicKey, error) {
	key, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("the key of %s is not on P-256", c.Subject.CommonName)
	}
	return key, nil
}

// issued checks that a certificate was issued by another: names, signature
// and the issuer's right to sign, all but the dates.
func issued(c, issuer *x509.Certificate) error {
	switch {
	case string(c.RawIssuer) != string(issuer.RawSubject):
		return fmt.Errorf("%s was issued by %q, not by %q", c.Subject.CommonName, c.Issuer, issuer.Subject)
	case c.SignatureAlgorithm != x509.ECDSAWithSHA256:
		return fmt.Errorf("%s is signed with %s, want ECDSA and SHA-256", c.Subject.CommonName, c.SignatureAlgorithm)
	case len(c.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("%s has the critical extension %s, which is not known", c.Subject.CommonName, c.UnhandledCriticalExtensions[0])
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("%s is not signed by %s: %w", c.Subject.CommonName, issuer.Subject.CommonName, err)
	}
	return nil
}

// Authorities returns the roots that may have signed collateral: Intel's, and
// those that a configuration names.
func Authorities(simulated []SimulatedRoot) ([]*x509.Certificate, error) {
	roots, err := trustedRoots(simulated)
	if err != nil {
		return nil, err
	}
	out := make([]*x509.Certificate, len(roots))
	for i, r := range roots {
		out[i] = r.cert
	}
	return out, nil
}
