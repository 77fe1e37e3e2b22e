package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// keyLifetime is that of the certificate shown as x5c. Keys are replaced by
// deleting the key file, long before.
const keyLifetime = 10 * 365 * 24 * time.Hour

// GenerateKey returns a P-256 key and its self-signed certificate as one PEM
// text: what the broker keeps in its key ring.
func GenerateKey(now time.Time) (secret.Bytes, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("generate token key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("generate token key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Vouchsafe attestation tokens"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(keyLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("certify token key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("encode token key: %w", err)
	}
	var out bytes.Buffer
	for _, b := range []*pem.Block{{Type: "PRIVATE KEY", Bytes: der}, {Type: "CERTIFICATE", Bytes: cert}} {
		if err := pem.Encode(&out, b); err != nil {
			return secret.Bytes{}, fmt.Errorf("encode token key: %w", err)
		}
	}
	return secret.New(out.Bytes()), nil
}

// ParseKey reads what [GenerateKey] wrote.
func ParseKey(text secret.Bytes) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	keyBlock, rest := pem.Decode(text.Reveal())
	if keyBlock == nil || keyBlock.Type != "PRIVATE KEY" {
		return nil, nil, errors.New("token key: no PRIVATE KEY block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("token key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("token key: want ECDSA, have %T", parsed)
	}
	certBlock, _ := pem.Decode(rest)
	if certBlock == nil || certBlock.Type != "CERTIFICATE" {
		return nil, nil, errors.New("token key: no CERTIFICATE block")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("token certificate: %w", err)
	}
	return key, cert, nil
}
