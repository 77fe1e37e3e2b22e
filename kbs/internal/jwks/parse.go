package jwks

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// Limits of a set.
const (
	maxKeys = 100
	minRSA  = 2048 // bits
)

// Parse reads a JWK set (RFC 7517 section 5), or public keys and certificates
// in PEM. Keys of a set that cannot verify a signature, or that this broker
// does not support, are left out; a set without any other is an error.
func Parse(raw []byte) ([]jose.JSONWebKey, error) {
	raw = bytes.TrimSpace(raw)
	if bytes.HasPrefix(raw, []byte("-----BEGIN ")) {
		return parsePEM(raw)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("jwks: more than %d keys", maxKeys)
	}
	var out []jose.JSONWebKey
	for _, one := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(one) == nil && k.IsPublic() && (k.Use == "" || k.Use == "sig") && len(Algorithms(k)) > 0 {
			out = append(out, k)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("jwks: the set has no key that can verify a signature")
	}
	return out, nil
}

func parsePEM(raw []byte) ([]jose.JSONWebKey, error) {
	var out []jose.JSONWebKey
	for len(out) <= maxKeys {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		key, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("jwks: %w", err)
		}
		k := jose.JSONWebKey{Key: key}
		if len(Algorithms(k)) == 0 {
			return nil, fmt.Errorf("jwks: keys of type %T are not supported", key)
		}
		out = append(out, k)
	}
	if len(out) == 0 || len(bytes.TrimSpace(raw)) != 0 {
		return nil, errors.New("jwks: the PEM text holds something that is no public key")
	}
	return out, nil
}

func parseBlock(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	default:
		return nil, fmt.Errorf("a %s is no public key", block.Type)
	}
}

// Accepted are the signature algorithms that any issuer may use: no symmetric
// one, and not "none".
func Accepted() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.EdDSA, jose.ES256, jose.ES384, jose.ES512,
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	}
}

// Algorithms returns those that a key may have signed with: the one that it
// names, if it fits its type, else all of its family.
func Algorithms(k jose.JSONWebKey) []jose.SignatureAlgorithm {
	fits := family(k.Key)
	if k.Algorithm == "" {
		return fits
	}
	if alg := jose.SignatureAlgorithm(k.Algorithm); slices.Contains(fits, alg) {
		return []jose.SignatureAlgorithm{alg}
	}
	return nil
}

func family(key any) []jose.SignatureAlgorithm {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return []jose.SignatureAlgorithm{jose.ES256}
		case 384:
			return []jose.SignatureAlgorithm{jose.ES384}
		case 521:
			return []jose.SignatureAlgorithm{jose.ES512}
		}
	case *rsa.PublicKey:
		if k.N.BitLen() >= minRSA {
			return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
		}
	}
	return nil
}

// Verify returns the payload of a compact JWS if one of the keys made its
// signature, with an algorithm that the key may use.
func Verify(jws *jose.JSONWebSignature, keys []jose.JSONWebKey) ([]byte, error) {
	alg := jose.SignatureAlgorithm(jws.Signatures[0].Header.Algorithm)
	for _, k := range keys {
		if !slices.Contains(Algorithms(k), alg) {
			continue
		}
		if payload, err := jws.Verify(k.Key); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("jwks: no key made this signature")
}
