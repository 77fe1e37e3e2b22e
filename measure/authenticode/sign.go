// Package authenticode signs PE images for Secure Boot, and says whose signature is
// on one: PKCS#7 over the digest that package efi computes (Microsoft, Windows
// Authenticode Portable Executable Signature Format 1.0). Of that format it has
// what firmware checks: RSA with SHA-256, one signer, no time. Nothing in a
// signature is random, so the same image, key and certificate give the same bytes.
package authenticode

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// Object identifiers (PKCS#7, RFC 2315; PKCS#9; Microsoft's specification).
var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidIndirectData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidImageData     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidSHA256RSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
)

// Tags of DER.
const (
	sequence = asn1.TagSequence | 0x20
	set      = asn1.TagSet | 0x20
	octets   = asn1.TagOctetString
	context0 = 0x80
	explicit = 0xa0
)

// Sizes of keys that firmware takes, in bits.
const (
	minKey = 2048
	maxKey = 4096
)

// Sign returns the image with a signature by the key, of which the certificate is.
func Sign(image []byte, key crypto.Signer, certificate *x509.Certificate) ([]byte, error) {
	if err := usable(certificate); err != nil {
		return nil, err
	}
	if public, ok := key.Public().(*rsa.PublicKey); !ok || !public.Equal(certificate.PublicKey) {
		return nil, errors.New("the certificate is of another key than the one that signs")
	}
	p, err := efi.ParsePE(image)
	if err != nil {
		return nil, err
	}
	if err := p.Signable(); err != nil {
		return nil, err
	}
	digest, err := digestOf(p)
	if err != nil {
		return nil, err
	}
	pkcs7, err := signedData(digest, key, certificate)
	if err != nil {
		return nil, err
	}
	return p.WithCertificate(pkcs7)
}

// usable reports whether firmware can check signatures of a certificate's key.
func usable(certificate *x509.Certificate) error {
	public, ok := certificate.PublicKey.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("the certificate has a key of type %T, and firmware wants RSA", certificate.PublicKey)
	}
	if n := public.N.BitLen(); n < minKey || n > maxKey {
		return fmt.Errorf("the certificate has an RSA key of %d bits, and firmware wants %d to %d", n, minKey, maxKey)
	}
	return nil
}

func digestOf(p *efi.PE) ([]byte, error) {
	h := sha256.New()
	if err := p.Authenticode(h); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// signedData is what lies behind a signed image.
func signedData(digest []byte, key crypto.Signer, certificate *x509.Certificate) ([]byte, error) {
	content := indirectData(digest)
	message := sha256.Sum256(content) // without the tag and length around it (RFC 2315, 9.3)
	attributes := [][]byte{
		der(sequence, oid(oidContentType), der(set, oid(oidIndirectData))),
		der(sequence, oid(oidMessageDigest), der(set, der(octets, message[:]))),
	}
	slices.SortFunc(attributes, bytes.Compare) // as DER orders a set
	signed := sha256.Sum256(der(set, attributes...))
	signature, err := key.Sign(nil, signed[:], crypto.SHA256) // PKCS #1 1.5 needs no randomness
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	signer := der(sequence, integer(1),
		der(sequence, certificate.RawIssuer, integerOf(certificate.SerialNumber)),
		algorithm(oidSHA256), der(explicit, attributes...), algorithm(oidRSA), der(octets, signature))
	return der(sequence, oid(oidSignedData), der(explicit, der(sequence, integer(1),
		der(set, algorithm(oidSHA256)),
		der(sequence, oid(oidIndirectData), der(explicit, der(sequence, content))),
		der(explicit, certificate.Raw),
		der(set, signer)))), nil
}

// indirectData is the content of SpcIndirectDataContent: that this is the digest of
// an image. The name of a file, which nothing reads, is empty.
func indirectData(digest []byte) []byte {
	noFile := der(explicit, der(explicit|2, der(context0)))
	flags := der(asn1.TagBitString, []byte{0})
	return slices.Concat(
		der(sequence, oid(oidImageData), der(sequence, flags, noFile)),
		der(sequence, algorithm(oidSHA256), der(octets, digest)))
}

// der encodes one element of the joined parts.
func der(tag int, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	const long = 0x80
	head := []byte{byte(tag)}
	switch n := len(body); {
	case n < long:
		head = append(head, byte(n))
	default:
		size := big.NewInt(int64(n)).Bytes()
		head = append(append(head, long|byte(len(size))), size...)
	}
	return append(head, body...)
}

func oid(id asn1.ObjectIdentifier) []byte { return marshal(id) }

func integer(n int64) []byte { return marshal(n) }

func integerOf(n *big.Int) []byte { return marshal(n) }

func algorithm(id asn1.ObjectIdentifier) []byte {
	return der(sequence, oid(id), der(asn1.TagNull))
}

func marshal(v any) []byte {
	raw, err := asn1.Marshal(v)
	if err != nil {
		panic(err) // numbers and identifiers
	}
	return raw
}
