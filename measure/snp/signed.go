package snp

import (
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
)

// SignedBy tells whether the key of a certificate signed this report. It asks
// nothing about the certificate: a guest uses it to see that it was given the one
// of its own chip, and a [Verifier] decides what that is worth.
func (r *Report) SignedBy(cert *x509.Certificate) bool {
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return false
	}
	sum := sha512.Sum384(r.Marshal()[:SignedSize])
	return ecdsa.Verify(key, sum[:], littleEndian(r.SignatureR), littleEndian(r.SignatureS))
}
