package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

const (
	pemCertificate = "CERTIFICATE"
	pemCRL         = "X509 CRL"
)

// certificateInfo is what a certificate or a revocation list says of itself.
type certificateInfo struct {
	Type       string   `json:"type"`
	UUID       string   `json:"uuid,omitempty"`
	SHA256     string   `json:"sha256"`
	Subject    string   `json:"subject,omitempty"`
	Issuer     string   `json:"issuer,omitempty"`
	Serial     string   `json:"serial,omitempty"`
	NotBefore  string   `json:"not_before,omitempty"`
	NotAfter   string   `json:"not_after,omitempty"`
	Extensions []string `json:"extensions,omitempty"` // OID and hex of the value
	Revoked    []string `json:"revoked,omitempty"`    // serial numbers in hex
	Error      string   `json:"error,omitempty"`
}

func describeBytes(raw []byte) certificateInfo {
	sum := sha256.Sum256(raw)
	return certificateInfo{SHA256: hex.EncodeToString(sum[:])}
}

func describeCertificate(der []byte) certificateInfo {
	i := describeBytes(der)
	i.Type = "certificate"
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		i.Error = err.Error()
		return i
	}
	i.Subject, i.Issuer, i.Serial = cert.Subject.String(), cert.Issuer.String(), cert.SerialNumber.Text(16)
	i.NotBefore, i.NotAfter = cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339)
	for _, e := range cert.Extensions {
		i.Extensions = append(i.Extensions, fmt.Sprintf("%s %x", e.Id, e.Value))
	}
	return i
}

func describeCRL(der []byte) certificateInfo {
	i := describeBytes(der)
	i.Type = "revocation list"
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		i.Error = err.Error()
		return i
	}
	i.Issuer = list.Issuer.String()
	if list.Number != nil {
		i.Serial = list.Number.Text(16)
	}
	i.NotBefore, i.NotAfter = list.ThisUpdate.UTC().Format(time.RFC3339), list.NextUpdate.UTC().Format(time.RFC3339)
	for _, e := range list.RevokedCertificateEntries {
		i.Revoked = append(i.Revoked, e.SerialNumber.Text(16))
	}
	return i
}

func certificateTable(certs []certificateInfo) table {
	t := table{head: []string{"CERTIFICATE", "VALID UNTIL", "SHA-256", "SUBJECT"}}
	for _, i := range certs {
		subject := i.Subject
		switch {
		case i.Error != "":
			subject = i.Error
		case subject == "" && i.Issuer != "":
			subject = fmt.Sprintf("of %s, revokes %d: %s", i.Issuer, len(i.Revoked), strings.Join(i.Revoked, " "))
		}
		t.rows = append(t.rows, []string{i.Type, i.NotAfter, i.SHA256, subject})
	}
	return t
}

// certificateInspector shows certificates and revocation lists, in DER or any
// number of them in PEM.
func certificateInspector() inspector {
	return inspector{
		kind: "certificates",
		recognises: func(raw []byte) bool {
			if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN ")) {
				return true
			}
			_, certErr := x509.ParseCertificate(raw)
			_, crlErr := x509.ParseRevocationList(raw)
			return certErr == nil || crlErr == nil
		},
		inspect: func(raw []byte) (inspection, error) {
			var out []certificateInfo
			rest := raw
			for block, tail := pem.Decode(rest); block != nil; block, tail = pem.Decode(rest) {
				rest = tail
				switch block.Type {
				case pemCertificate:
					out = append(out, describeCertificate(block.Bytes))
				case pemCRL:
					out = append(out, describeCRL(block.Bytes))
				default:
					return inspection{}, fmt.Errorf("a PEM block %q is no certificate and no revocation list", block.Type)
				}
			}
			if out == nil {
				if _, err := x509.ParseRevocationList(raw); err == nil {
					out = append(out, describeCRL(raw))
				} else {
					out = append(out, describeCertificate(raw))
				}
			}
			return inspection{more: map[string]any{"certificates": out}, tables: []table{certificateTable(out)}}, nil
		},
	}
}
