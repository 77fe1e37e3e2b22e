package ship

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// GenerateKey makes a P-256 signing key: the private part as PEM PKCS#8, the
// public part as PEM SubjectPublicKeyInfo, which is what a policy's keyPath
// points to.
func GenerateKey() (private secret.Bytes, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return secret.Bytes{}, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return secret.Bytes{}, nil, err
	}
	defer clear(der)
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return secret.Bytes{}, nil, err
	}
	private = secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return private, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}), nil
}

// ParsePrivateKey reads a signing key, PEM PKCS#8. The errors quote nothing of
// the key.
func ParsePrivateKey(doc secret.Bytes) (crypto.Signer, error) {
	block, _ := pem.Decode(doc.Reveal())
	if block == nil {
		return nil, errors.New("the signing key is not PEM")
	}
	defer clear(block.Bytes)
	if block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("the signing key is a PEM block %.60q: an unencrypted PKCS#8 key, PRIVATE KEY, is needed", block.Type)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the signing key is not PKCS#8")
	}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return k, nil
		}
	case ed25519.PrivateKey:
		return k, nil
	case *rsa.PrivateKey:
		if k.N.BitLen() >= 2048 {
			return k, nil
		}
	}
	return nil, errors.New("the signing key must be ECDSA P-256, P-384 or P-521, Ed25519, or RSA of 2048 bits or more")
}

// PublicKey returns the public part of a signing key, as PEM.
func PublicKey(doc secret.Bytes) ([]byte, error) {
	signer, err := ParsePrivateKey(doc)
	if err != nil {
		return nil, err
	}
	return PublicPEM(signer.Public())
}

// PublicPEM writes a public key as policies have it.
func PublicPEM(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// signPayload signs as cosign does (guest-protocol 15.3). The same key signs the
// same bytes the same way: ECDSA without a source of randomness is that of
// RFC 6979.
func signPayload(key crypto.Signer, payload []byte) ([]byte, error) {
	switch k := key.Public().(type) {
	case ed25519.PublicKey:
		return key.Sign(rand.Reader, payload, crypto.Hash(0))
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P384():
			sum := sha512.Sum384(payload)
			return key.Sign(nil, sum[:], crypto.SHA384)
		case elliptic.P521():
			sum := sha512.Sum512(payload)
			return key.Sign(nil, sum[:], crypto.SHA512)
		}
		sum := sha256.Sum256(payload)
		return key.Sign(nil, sum[:], crypto.SHA256)
	}
	sum := sha256.Sum256(payload)
	return key.Sign(rand.Reader, sum[:], crypto.SHA256)
}
