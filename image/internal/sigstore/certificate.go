package sigstore

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"
)

// The extensions of Fulcio's certificates that name the issuer of the identity
// (sigstore fulcio, docs/oid-info.md): the first one holds bare text.
var (
	oidIssuer  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
	oidIssuer2 = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
)

// An Identity is who signed: whom the issuer, an OpenID provider, knows as
// subject, which is an e-mail address or a URI.
type Identity struct {
	Issuer  string
	Subject string
}

// IdentityOf reads the identity of a certificate. It is worth what the
// certificate is worth.
func IdentityOf(c *x509.Certificate) (Identity, error) {
	var id Identity
	for _, e := range c.Extensions {
		issuer := ""
		switch {
		case e.Id.Equal(oidIssuer):
			issuer = string(e.Value)
		case e.Id.Equal(oidIssuer2):
			if rest, err := asn1.Unmarshal(e.Value, &issuer); err != nil || len(rest) > 0 {
				return id, errors.New("the certificate's issuer of the identity cannot be read")
			}
		default:
			continue
		}
		if id.Issuer != "" && id.Issuer != issuer {
			return id, errors.New("the certificate names two issuers of the identity")
		}
		id.Issuer = issuer
	}
	if id.Issuer == "" {
		return id, errors.New("the certificate names no issuer of the identity")
	}
	subjects := append([]string{}, c.EmailAddresses...)
	for _, u := range c.URIs {
		subjects = append(subjects, u.String())
	}
	if len(subjects) != 1 || len(c.DNSNames)+len(c.IPAddresses) > 0 {
		return id, fmt.Errorf("the certificate names %d e-mail addresses and URIs, exactly one is needed", len(subjects))
	}
	id.Subject = subjects[0]
	return id, nil
}

// checkChain verifies the signer's certificate at one moment and returns the
// certificate that issued it.
func (r *Root) checkChain(chain []*x509.Certificate, at time.Time) (*x509.Certificate, error) {
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	for _, a := range r.authorities {
		if !a.valid.holds(at) {
			continue
		}
		last := len(a.chain) - 1
		options.Roots.AddCert(a.chain[last])
		for _, c := range a.chain[:last] {
			options.Intermediates.AddCert(c)
		}
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	if chain[0].IsCA {
		return nil, errors.New("the signer's certificate is an authority's")
	}
	paths, err := chain[0].Verify(options)
	if err != nil {
		return nil, fmt.Errorf("the signer's certificate: %w", err)
	}
	if len(paths[0]) < 2 {
		return nil, errors.New("the signer's certificate was not issued by an authority")
	}
	return paths[0][1], nil
}
