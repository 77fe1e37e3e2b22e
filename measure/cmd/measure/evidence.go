package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// readEvidence reads evidence in its wire form, or a raw report, to which the
// certificates of the given files belong.
func (c *cli) readEvidence(name string, certs []string) (*snp.Evidence, error) {
	raw, err := c.readFile(name)
	if err != nil {
		return nil, err
	}
	if len(raw) != snp.ReportSize || bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		if len(certs) > 0 {
			return nil, errors.New("--certs goes with a raw report; evidence in JSON has its own certificates")
		}
		e, err := snp.ParseEvidence(measure.Evidence{Platform: measure.SNP, Data: raw})
		if err != nil {
			return nil, invalidEvidence{fmt.Errorf("%s: %w", name, err)}
		}
		return e, nil
	}
	e := new(snp.Evidence)
	if e.Report, err = snp.ParseReport(raw); err != nil {
		return nil, invalidEvidence{fmt.Errorf("%s: %w", name, err)}
	}
	for _, path := range certs {
		more, err := c.readCertificates(path)
		if err != nil {
			return nil, err
		}
		e.Certificates = append(e.Certificates, more...)
	}
	return e, nil
}

// readCertificates reads one certificate in DER, or any number in PEM.
func (c *cli) readCertificates(path string) ([]snp.Certificate, error) {
	rest, err := c.readFile(path)
	if err != nil {
		return nil, err
	}
	var ders [][]byte
	for block, tail := pem.Decode(rest); block != nil; block, tail = pem.Decode(rest) {
		rest = tail
		if block.Type == "CERTIFICATE" {
			ders = append(ders, block.Bytes)
		}
	}
	if ders == nil {
		ders = [][]byte{rest}
	}
	var out []snp.Certificate
	for _, der := range ders {
		kind, err := certificateType(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, snp.Certificate{Type: kind, Data: der})
	}
	return out, nil
}

// certificateType tells AMD's certificates apart by their names.
func certificateType(der []byte) (snp.CertType, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "", err
	}
	switch name := cert.Subject.CommonName; {
	case name == "SEV-VCEK":
		return snp.CertVCEK, nil
	case name == "SEV-VLEK":
		return snp.CertVLEK, nil
	case strings.HasPrefix(name, "ARK-"):
		return snp.CertARK, nil
	case strings.HasPrefix(name, "SEV-"):
		return snp.CertASK, nil
	default:
		return "", fmt.Errorf("a certificate named %q is none of AMD's", name)
	}
}
