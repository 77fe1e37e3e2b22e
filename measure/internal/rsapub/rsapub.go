// Package rsapub verifies many RSA signatures of one key, at two thirds of the
// price of one at a time.
//
// A TPM signs every quote with the same key. What crypto/rsa computes of the key
// anew for each signature, a third of its work, is done here once. Signatures
// and keys are public, so nothing here has to take the same time for all of
// them. Nothing here can sign.
//
// The arithmetic is that of filippo.io/bigmod, which is that of the standard
// library. What is ours is the comparison with the one encoding that RSASSA-PKCS1-v1_5
// allows (RFC 8017, sections 8.2.2 and 9.2).
package rsapub

import (
	"bytes"
	"crypto"
	"crypto/fips140"
	"crypto/rsa"
	"errors"
	"fmt"
	"math"

	"filippo.io/bigmod"
)

// Bounds of keys in bits: TPMs have keys of 2048 and 3072.
const (
	minBits = 2048
	maxBits = 4096
)

// ErrFIPS is the answer where the process must use the validated module of the
// standard library for every signature.
var ErrFIPS = errors.New("in FIPS 140 mode the standard library verifies")

// A Key is a public key, prepared. It does not change and may be used by many
// goroutines.
type Key struct {
	modulus  *bigmod.Modulus
	exponent uint
}

// New prepares a key. An error means that crypto/rsa has to verify by it.
func New(pub *rsa.PublicKey) (*Key, error) {
	if fips140.Enabled() {
		return nil, ErrFIPS
	}
	if pub == nil || pub.N == nil {
		return nil, errors.New("no RSA key")
	}
	if n := pub.N.BitLen(); n < minBits || n > maxBits || n%8 != 0 {
		return nil, fmt.Errorf("an RSA key of %d bits, want whole bytes of %d to %d", n, minBits, maxBits)
	}
	if pub.E < 3 || pub.E&1 == 0 || pub.E > math.MaxInt32 || pub.N.Bit(0) == 0 {
		return nil, errors.New("an RSA key with an even modulus or an exponent out of range")
	}
	m, err := bigmod.NewModulus(pub.N.Bytes())
	if err != nil {
		return nil, fmt.Errorf("RSA key: %w", err)
	}
	return &Key{modulus: m, exponent: uint(pub.E)}, nil
}

// digestInfo is what precedes a digest (RFC 8017, section 9.2, note 1).
var digestInfo = map[crypto.Hash][]byte{
	crypto.SHA256: {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	crypto.SHA512: {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
}

// VerifyPKCS1v15 checks a signature over a digest, with SHA-256, SHA-384 or
// SHA-512. It returns [rsa.ErrVerification] for a signature that does not hold.
func (k *Key) VerifyPKCS1v15(hash crypto.Hash, digest, sig []byte) error {
	info, ok := digestInfo[hash]
	if !ok || len(digest) != hash.Size() {
		return fmt.Errorf("a digest of %d bytes for %v", len(digest), hash)
	}
	size := k.modulus.Size()
	if len(sig) != size {
		return rsa.ErrVerification
	}
	s, err := bigmod.NewNat().SetBytes(sig, k.modulus)
	if err != nil {
		return rsa.ErrVerification // not below the modulus
	}
	seen := bigmod.NewNat().ExpShortVarTime(s, k.exponent, k.modulus).Bytes(k.modulus)
	if !bytes.Equal(seen, encoded(size, info, digest)) {
		return rsa.ErrVerification
	}
	return nil
}

// encoded is the one message that a signature may hold: 00 01 FF ... FF 00, the
// algorithm and the digest.
func encoded(size int, info, digest []byte) []byte {
	em := bytes.Repeat([]byte{0xff}, size)
	rest := size - len(info) - len(digest)
	em[0], em[1], em[rest-1] = 0, 1, 0
	copy(em[rest:], info)
	copy(em[rest+len(info):], digest)
	return em
}
