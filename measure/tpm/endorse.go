package tpm

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Endorsement says which manufacturers' TPMs count when a key is enrolled.
type Endorsement struct {
	// Manufacturers sign certificates of endorsement keys.
	Manufacturers []Authority
	// UnsafeNoRevocation accepts a certificate without current revocation lists
	// of its issuers. What a list at hand revokes is refused all the same.
	UnsafeNoRevocation bool
	Now                time.Time
}

// Check verifies the certificate of an endorsement key and returns it with the
// name of the manufacturer. Such a certificate says that the key is in a genuine
// TPM; it says nothing of any other key.
func (e Endorsement) Check(der []byte) (*x509.Certificate, string, error) {
	leaf, err := parseCertificate(der)
	if err != nil {
		return nil, "", fmt.Errorf("the certificate of the endorsement key: %w", err)
	}
	if len(e.Manufacturers) == 0 {
		return nil, "", errors.New("no manufacturer of TPMs is trusted")
	}
	var errs []error
	for _, m := range e.Manufacturers {
		a, err := newAuthority(m, false)
		if err != nil {
			return nil, "", err
		}
		chain, err := a.chain(leaf, nil, oidEKCertificate, e.Now)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.name, err))
			continue
		}
		err = a.revocation(chain, e.Now)
		if err != nil && (!e.UnsafeNoRevocation || errors.Is(err, errRevoked)) {
			return nil, "", fmt.Errorf("the certificate of the endorsement key, by %s: %w", a.name, err)
		}
		return leaf, a.name, nil
	}
	return nil, "", fmt.Errorf("the certificate of the endorsement key is by no manufacturer that is trusted: %w", errors.Join(errs...))
}
