package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
)

const (
	maxKeyFile = 64 << 10 // bytes
	minRSABits = 2048
)

// A publicKey verifies cosign signatures (guest-protocol 15.3).
type publicKey struct {
	key         crypto.PublicKey
	fingerprint string
}

// keyDataPEM accepts both readings of keyData: base64, as containers/image
// wants it, and literal PEM, as the field's guests took it.
func keyDataPEM(s string) ([]byte, error) {
	if strings.Contains(s, "-----BEGIN") {
		return []byte(s), nil
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return nil, errors.New("keyData is neither base64 nor PEM")
	}
	return b, nil
}

// parseKey reads one PEM public key and nothing else.
func parseKey(raw []byte) (publicKey, error) {
	if len(raw) > maxKeyFile {
		return publicKey{}, fmt.Errorf("public key of %d bytes, at most %d are read", len(raw), maxKeyFile)
	}
	block, rest := pem.Decode(raw)
	if block == nil || block.Type != "PUBLIC KEY" {
		return publicKey{}, errors.New("the key is not a PEM block PUBLIC KEY")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return publicKey{}, errors.New("data after the public key")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return publicKey{}, fmt.Errorf("public key: %w", err)
	}
	return usable(key)
}

// usable refuses keys of kinds and sizes that signers should not have.
func usable(key crypto.PublicKey) (publicKey, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return publicKey{}, fmt.Errorf("public key on curve %s: P-256, P-384 and P-521 are supported", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return publicKey{}, fmt.Errorf("RSA key of %d bits, at least %d are needed", k.N.BitLen(), minRSABits)
		}
	default:
		return publicKey{}, fmt.Errorf("public keys of type %T are not supported", key)
	}
	name, err := Fingerprint(key)
	return publicKey{key: key, fingerprint: name}, err
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Fingerprint names a public key in verdicts, rejections and tools: the
// SHA-256 of its SubjectPublicKeyInfo.
func Fingerprint(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	return fingerprint(der), nil
}

// verify reports whether sig is a signature of message. Signers of the field
// differ in what they hash with for one kind of key, and in RSA's padding: old
// cosign took SHA-256 for every key, others take the hash of the curve's
// strength. None of these can be mistaken for another. What is not at hand cannot
// be verified by Ed25519, which signs messages and no digests.
func (k publicKey) verify(message sigstore.Content, sig []byte) bool {
	sum := message.Sum(crypto.SHA256)
	if sum == nil {
		return false
	}
	switch key := k.key.(type) {
	case *ecdsa.PublicKey:
		sums := [][]byte{sum}
		switch key.Curve {
		case elliptic.P384():
			sums = append(sums, message.Sum(crypto.SHA384))
		case elliptic.P521():
			sums = append(sums, message.Sum(crypto.SHA512))
		}
		return slices.ContainsFunc(sums, func(sum []byte) bool { return sum != nil && ecdsa.VerifyASN1(key, sum, sig) })
	case ed25519.PublicKey:
		if raw, whole := message.Raw(); whole && ed25519.Verify(key, raw, sig) {
			return true
		}
		sum := message.Sum(crypto.SHA512)
		return sum != nil && ed25519.VerifyWithOptions(key, sum, sig, &ed25519.Options{Hash: crypto.SHA512}) == nil
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum, sig) == nil || rsa.VerifyPSS(key, crypto.SHA256, sum, sig, nil) == nil
	}
	return false
}

func sum256(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
func sum384(b []byte) []byte { s := sha512.Sum384(b); return s[:] }
func sum512(b []byte) []byte { s := sha512.Sum512(b); return s[:] }
