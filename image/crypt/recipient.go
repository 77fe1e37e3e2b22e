package crypt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const minRSA = 2048 // bits

// A Recipient is somebody who shall be able to open a layer.
type Recipient interface {
	// Wrap makes the recipient's packet of the private options.
	Wrap(private secret.Bytes) (WrappedKey, error)
	// String names the recipient; it holds no secret.
	String() string
}

// NewRecipient reads the key of a recipient: for SchemeJWE a public key (PEM,
// DER or JWK), for SchemePKCS7 a certificate (PEM or DER), for SchemePKCS11 the
// public key of an RSA key (the same forms).
func NewRecipient(s Scheme, doc []byte) (Recipient, error) {
	switch s {
	case SchemeJWE:
		return newJWERecipient(doc)
	case SchemePKCS7:
		return newCertRecipient(doc)
	case SchemePKCS11:
		return newTokenRecipient(doc)
	case schemePGP:
		return nil, fmt.Errorf("recipients of kind %.40q (OpenPGP) are not supported: a key pair of any other kind does", s)
	case SchemeProvider: // has no key pair, see BrokerRecipient
	}
	return nil, fmt.Errorf("recipients of kind %.40q are not supported: %s, %s and %s are", s, SchemeJWE, SchemePKCS7, SchemePKCS11)
}

type brokerRecipient struct {
	kid string
	kek secret.Bytes
}

// BrokerRecipient is whoever gets the key-encrypting key (32 bytes), which has
// that key ID, from the broker. The caller destroys the key when he is done.
func BrokerRecipient(kid string, kek secret.Bytes) (Recipient, error) {
	kid, err := NormalizeKID(kid)
	if err != nil {
		return nil, err
	}
	if kek.Len() != kekSize {
		return nil, fmt.Errorf("key-encrypting key of %d bytes, want %d", kek.Len(), kekSize)
	}
	return brokerRecipient{kid: kid, kek: kek}, nil
}

func (r brokerRecipient) Wrap(private secret.Bytes) (WrappedKey, error) {
	packet, err := SealPacket(r.kek, r.kid, private)
	return WrappedKey{Scheme: SchemeProvider, Packet: packet}, err
}

func (r brokerRecipient) String() string { return r.kid }

// WrapFor makes one packet for each recipient.
func WrapFor(private secret.Bytes, recipients ...Recipient) ([]WrappedKey, error) {
	var keys []WrappedKey
	for _, r := range recipients {
		w, err := r.Wrap(private)
		if err != nil {
			return nil, err
		}
		keys = append(keys, w)
	}
	return keys, nil
}

// parsePublicKey reads PEM or DER (SubjectPublicKeyInfo) or a JWK. The algorithm
// is that of a JWK, if it names one.
func parsePublicKey(doc []byte) (crypto.PublicKey, jose.KeyAlgorithm, error) {
	if len(doc) > maxOptions {
		return nil, "", errors.New("the public key is too large")
	}
	var algorithm jose.KeyAlgorithm
	der := doc
	if block, _ := pem.Decode(doc); block != nil {
		der = block.Bytes
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		var jwk jose.JSONWebKey
		if jwk.UnmarshalJSON(doc) != nil || !jwk.IsPublic() {
			return nil, "", errors.New("not a public key: PEM or DER (SubjectPublicKeyInfo), or a JWK, is needed")
		}
		key, algorithm = jwk.Key, jose.KeyAlgorithm(jwk.Algorithm)
	}
	if algorithm != "" && !slices.Contains(jweKeyAlgorithms, algorithm) {
		return nil, "", fmt.Errorf("the algorithm %.40q of the JWK is not supported", algorithm)
	}
	return key, algorithm, checkPublic(key)
}

func checkPublic(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return fmt.Errorf("an RSA key of %d bits is too short, %d are needed", k.N.BitLen(), minRSA)
		}
		return nil
	case *ecdsa.PublicKey:
		return nil
	case ed25519.PublicKey:
		return errors.New("an Ed25519 key can sign, but nothing can be encrypted for it")
	}
	return fmt.Errorf("keys of type %T are not supported", key)
}

// fingerprint is the beginning of the SHA-256 of a public key.
func fingerprint(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "unknown key"
	}
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:8])
}
