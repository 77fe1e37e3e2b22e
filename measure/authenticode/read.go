package authenticode

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// ErrSignature says that a signature is malformed, or not of this image, or not by
// the certificate that it names.
var ErrSignature = errors.New("the signature is not one on this image")

// maxSignature is the largest signature that is read, in bytes.
const maxSignature = 256 << 10

// Signature is one on an image, which was checked: the signer's key signed just
// this image. Who the signer is, and whether that is good, it does not say.
type Signature struct {
	Signer *x509.Certificate
	// Certificates are all that came along, the signer's among them.
	Certificates []*x509.Certificate
}

// Read returns the signatures on an image, none for an image without. A signature
// that is not one on this image is an error that wraps [ErrSignature].
func Read(p *efi.PE) ([]Signature, error) {
	all, err := p.Certificates()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	digest, err := digestOf(p)
	if err != nil {
		return nil, err
	}
	var out []Signature
	for _, raw := range all {
		s, err := open(raw, digest)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// By reports whether an image is signed by the key of a certificate, or by one that
// it issued; a certificate's times do not matter, as they do not to firmware.
func (s Signature) By(trusted *x509.Certificate) bool {
	if s.Signer.Equal(trusted) {
		return true
	}
	return usable(trusted) == nil && s.Signer.CheckSignatureFrom(trusted) == nil
}

// The parts of PKCS#7 (RFC 2315, 9) as they are read. What is not used is raw.
type (
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}
	signed struct {
		Version      int
		Digests      asn1.RawValue
		Content      contentInfo
		Certificates asn1.RawValue
		Signers      []signerInfo `asn1:"set"`
	}
	signerInfo struct {
		Version    int
		Issuer     issuerAndSerial
		Digest     pkix.AlgorithmIdentifier
		Attributes asn1.RawValue
		Encryption pkix.AlgorithmIdentifier
		Signature  []byte
		Unsigned   asn1.RawValue `asn1:"optional"` // timestamps, which firmware ignores
	}
	issuerAndSerial struct {
		Name   asn1.RawValue
		Serial *big.Int
	}
	attribute struct {
		Type   asn1.ObjectIdentifier
		Values asn1.RawValue
	}
	imageDigest struct {
		Data   asn1.RawValue
		Digest struct {
			Algorithm pkix.AlgorithmIdentifier
			Value     []byte
		}
	}
)

// open checks one signature against the digest of its image.
func open(raw, digest []byte) (Signature, error) {
	data, err := parse(raw)
	if err != nil {
		return Signature{}, err
	}
	if err := data.isOf(digest); err != nil {
		return Signature{}, err
	}
	certificates, err := x509.ParseCertificates(data.Certificates.Bytes)
	if err != nil {
		return Signature{}, fmt.Errorf("%w: certificates: %w", ErrSignature, err)
	}
	signer := data.Signers[0]
	for _, c := range certificates {
		if !bytes.Equal(c.RawIssuer, signer.Issuer.Name.FullBytes) || signer.Issuer.Serial == nil || c.SerialNumber.Cmp(signer.Issuer.Serial) != 0 {
			continue
		}
		if err := usable(c); err != nil {
			return Signature{}, fmt.Errorf("%w: %w", ErrSignature, err)
		}
		// The attributes are signed as the set that they are, whatever their tag.
		if err := c.CheckSignature(x509.SHA256WithRSA, der(set, signer.Attributes.Bytes), signer.Signature); err != nil {
			return Signature{}, fmt.Errorf("%w: %w", ErrSignature, err)
		}
		return Signature{c, certificates}, nil
	}
	return Signature{}, fmt.Errorf("%w: its signer's certificate is not in it", ErrSignature)
}

// parse takes PKCS#7 apart.
func parse(raw []byte) (*signed, error) {
	if len(raw) > maxSignature {
		return nil, fmt.Errorf("%w: %d bytes", ErrSignature, len(raw))
	}
	var outer contentInfo
	rest, err := asn1.Unmarshal(raw, &outer)
	// What follows fills the table up to a multiple of eight.
	if err != nil || !outer.Type.Equal(oidSignedData) || len(rest) >= 8 || len(bytes.Trim(rest, "\x00")) > 0 || !isExplicit(outer.Content) {
		return nil, fmt.Errorf("%w: it is no PKCS#7", ErrSignature)
	}
	var data signed
	if rest, err := asn1.Unmarshal(outer.Content.Bytes, &data); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: it is no signed data", ErrSignature)
	}
	if len(data.Signers) != 1 || !isExplicit(data.Certificates) || !isExplicit(data.Signers[0].Attributes) {
		return nil, fmt.Errorf("%w: it has %d signers, or parts are missing", ErrSignature, len(data.Signers))
	}
	s := data.Signers[0]
	if !s.Digest.Algorithm.Equal(oidSHA256) || !s.Encryption.Algorithm.Equal(oidRSA) && !s.Encryption.Algorithm.Equal(oidSHA256RSA) {
		return nil, fmt.Errorf("%w: signed by %v with %v, and RSA with SHA-256 is read", ErrSignature, s.Encryption.Algorithm, s.Digest.Algorithm)
	}
	return &data, nil
}

func isExplicit(v asn1.RawValue) bool {
	return v.Class == asn1.ClassContextSpecific && v.Tag == 0 && v.IsCompound
}

// isOf reports whether what is signed is this digest of an image.
func (s *signed) isOf(digest []byte) error {
	if !s.Content.Type.Equal(oidIndirectData) || !isExplicit(s.Content.Content) {
		return fmt.Errorf("%w: it is not over the digest of an image", ErrSignature)
	}
	var content asn1.RawValue
	rest, err := asn1.Unmarshal(s.Content.Content.Bytes, &content)
	if err != nil || len(rest) > 0 {
		return fmt.Errorf("%w: its content", ErrSignature)
	}
	var image imageDigest
	if rest, err := asn1.Unmarshal(content.FullBytes, &image); err != nil || len(rest) > 0 {
		return fmt.Errorf("%w: its content", ErrSignature)
	}
	if !image.Digest.Algorithm.Algorithm.Equal(oidSHA256) || !bytes.Equal(image.Digest.Value, digest) {
		return fmt.Errorf("%w: it is over %x, and the image's digest is %x", ErrSignature, image.Digest.Value, digest)
	}
	sum := sha256.Sum256(content.Bytes)
	want := map[string][]byte{
		oidContentType.String(): oid(oidIndirectData), oidMessageDigest.String(): der(octets, sum[:]),
	}
	met := map[string]bool{}
	for rest = s.Signers[0].Attributes.Bytes; len(rest) > 0; {
		var a attribute
		if rest, err = asn1.Unmarshal(rest, &a); err != nil {
			return fmt.Errorf("%w: its attributes", ErrSignature)
		}
		value, ok := want[a.Type.String()]
		if ok && !bytes.Equal(a.Values.Bytes, value) {
			return fmt.Errorf("%w: it is over another content", ErrSignature)
		}
		met[a.Type.String()] = ok
	}
	if !met[oidContentType.String()] || !met[oidMessageDigest.String()] {
		return fmt.Errorf("%w: it does not sign what it is over", ErrSignature)
	}
	return nil
}
