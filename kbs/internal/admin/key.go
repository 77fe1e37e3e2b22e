package admin

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// GenerateKey returns a new Ed25519 key as PKCS #8 in PEM.
func GenerateKey() (secret.Bytes, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("generate admin key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("encode admin key: %w", err)
	}
	return secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// MarshalPublicKey returns the public half as SPKI in PEM.
func MarshalPublicKey(key ed25519.PrivateKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode admin key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), nil
}

// ParsePrivateKey reads the private half.
func ParsePrivateKey(text secret.Bytes) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text.Reveal())
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("admin key: no PRIVATE KEY block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("admin key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("admin key: want Ed25519, have %T", parsed)
	}
	return key, nil
}

// ParsePublicKey reads the public half.
func ParsePublicKey(text []byte) (ed25519.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("admin public key: no PUBLIC KEY block")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("admin public key: %w", err)
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("admin public key: want Ed25519, have %T", parsed)
	}
	return key, nil
}
