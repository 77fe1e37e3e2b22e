package nvidia

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// SimulatedRoot is an authority of one's own, trusted because a configuration
// names it. [CreateVendor] writes such a certificate as root.pem.
type SimulatedRoot struct {
	// Name appears in verdicts, claims and tokens. Names must differ and must
	// not start with "NVIDIA".
	Name string
	// Certificate is one certificate in PEM.
	Certificate []byte
}

// root is a certificate in which chains may end.
type root struct {
	name      string
	simulated bool
	sha256    string
}

func simulatedRoot(s SimulatedRoot) (*root, error) {
	if s.Name == "" || strings.HasPrefix(strings.ToUpper(s.Name), "NVIDIA") {
		return nil, fmt.Errorf("a simulated root needs a name that does not start with NVIDIA, got %q", s.Name)
	}
	c, err := parseRoot(s.Certificate)
	if err != nil {
		return nil, fmt.Errorf("simulated root %q: %w", s.Name, err)
	}
	r := &root{name: s.Name, simulated: true, sha256: fingerprint(c)}
	if r.sha256 == RootSHA256 {
		return nil, fmt.Errorf("simulated root %q is that of NVIDIA", s.Name)
	}
	return r, nil
}

func parseRoot(raw []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(raw)
	if block == nil || block.Type != pemCertificate || len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("want one certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
