package given

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// MaxKey bounds the file of a key or of a certificate, in bytes.
const MaxKey = 64 << 10

// Kinds of PEM blocks.
const (
	kindPrivate     = "PRIVATE KEY"
	kindPublic      = "PUBLIC KEY"
	kindCertificate = "CERTIFICATE"
)

// Signer reads a private key: PKCS#8 in PEM, as 'openssl genpkey' writes it. Others
// must not be able to read the file.
func Signer(name string) (crypto.Signer, error) {
	raw, err := Secret(name, MaxKey)
	if err != nil {
		return nil, err
	}
	defer raw.Destroy()
	return ParseSigner(name, raw.Reveal())
}

// ParseSigner reads such a key out of a file's content; the name is for the error.
func ParseSigner(name string, content []byte) (crypto.Signer, error) {
	raw, err := block(name, content, kindPrivate)
	if err != nil {
		return nil, err
	}
	defer clear(raw) // the key has copies of what it needs
	key, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a key of type %T does not sign", name, key)
	}
	return signer, nil
}

// PublicKey reads a public key in PEM, as 'openssl pkey -pubout' writes it.
func PublicKey(name string) (crypto.PublicKey, error) {
	content, err := File(name, MaxKey)
	if err != nil {
		return nil, err
	}
	return ParsePublicKey(name, content)
}

// ParsePublicKey reads such a key out of a file's content; the name is for the
// error.
func ParsePublicKey(name string, content []byte) (crypto.PublicKey, error) {
	raw, err := block(name, content, kindPublic)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// Certificate reads a certificate in PEM.
func Certificate(name string) (*x509.Certificate, error) {
	content, err := File(name, MaxKey)
	if err != nil {
		return nil, err
	}
	raw, err := block(name, content, kindCertificate)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// block returns the first block, which must be of the kind that is wanted.
func block(name string, content []byte, kind string) ([]byte, error) {
	b, _ := pem.Decode(content)
	if b == nil || b.Type != kind {
		return nil, fmt.Errorf("%s is not a %s in PEM", name, kind)
	}
	return b.Bytes, nil
}
