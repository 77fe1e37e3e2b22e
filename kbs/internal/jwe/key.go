package jwe

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Names for [Generate], as guests write them in their configuration
// (kbs-protocol 3.6). P-384 and the hybrid are ours beside them; not every
// broker takes those.
const (
	KeyP256   = AlgECDH + "-P256"
	KeyP384   = AlgECDH + "-P384"
	KeyP521   = AlgECDH + "-P521"
	KeyRSA    = AlgRSA
	KeyMLKEM  = AlgMLKEM
	KeyHybrid = AlgHybrid
)

// ErrNoPEM says that a key of this kind has no PEM form that others read.
var ErrNoPEM = errors.New("jwe: a key of this kind has no PEM form")

// public is a guest key that was found to be sound.
type public interface {
	recipient(random io.Reader) (*recipient, error)
}

// Check refuses a key that [Seal] cannot encrypt to: of another type, off its
// curve, too small, of the wrong length.
func Check(jwk api.JWK) error {
	_, err := parse(jwk)
	return err
}

func parse(jwk api.JWK) (public, error) {
	switch {
	case jwk.Kty == "EC" && jwk.Alg == AlgECDH:
		return parseEC(jwk)
	case jwk.Kty == "RSA" && jwk.Alg == AlgRSA:
		key, err := parseRSA(jwk)
		return rsaPublic{key}, err
	case jwk.Kty == "AKP" && jwk.Alg == AlgMLKEM:
		return parseMLKEM(jwk)
	case jwk.Kty == "AKP" && jwk.Alg == AlgHybrid:
		return parseHybrid(jwk)
	}
	return nil, fmt.Errorf("jwe: a key of type %.16q with alg %.32q is not supported", jwk.Kty, jwk.Alg)
}

// A recipient is a guest key made ready to wrap one content key.
type recipient struct {
	header header
	kek    []byte         // all but RSA
	rsa    *rsa.PublicKey // RSA
}

func (r *recipient) wrap(random io.Reader, cek []byte) ([]byte, error) {
	if r.rsa != nil {
		out, err := rsa.EncryptOAEP(sha256.New(), random, r.rsa, cek, nil)
		if err != nil {
			return nil, fmt.Errorf("jwe: %w", err)
		}
		return out, nil
	}
	defer clear(r.kek)
	return wrapKey(r.kek, cek)
}

// A PrivateKey is the guest's half: it opens what was sealed to [PrivateKey.JWK].
type PrivateKey struct {
	alg  string
	half half
}

// half is the part that each algorithm has of its own.
type half interface {
	jwk() api.JWK
	// der returns the type of a PEM block and its bytes, or ErrNoPEM.
	der() (blockType string, der []byte, err error)
	// unwrap returns the content key of a message whose header names the key's
	// algorithm.
	unwrap(h header, encryptedKey []byte) ([]byte, error)
}

// makers are the keys that Generate makes. "" is the field's default.
var makers = map[string]func() (*PrivateKey, error){
	"":        func() (*PrivateKey, error) { return generateEC("P-256") },
	AlgECDH:   func() (*PrivateKey, error) { return generateEC("P-256") },
	KeyP256:   func() (*PrivateKey, error) { return generateEC("P-256") },
	KeyP384:   func() (*PrivateKey, error) { return generateEC("P-384") },
	KeyP521:   func() (*PrivateKey, error) { return generateEC("P-521") },
	KeyRSA:    generateRSAKey,
	KeyMLKEM:  generateMLKEM,
	KeyHybrid: generateHybrid,
}

// KnownKey reports whether [Generate] takes this name.
func KnownKey(alg string) bool { return makers[alg] != nil }

// Generate makes a key of a name above. [AlgECDH] alone, or "", means P-256,
// the field's default; RSA keys have 2048 bits.
func Generate(alg string) (*PrivateKey, error) {
	makeKey, ok := makers[alg]
	if !ok {
		return nil, fmt.Errorf("jwe: key algorithm %.32q is not supported", alg)
	}
	return makeKey()
}

// JWK returns the public half as the handshake sends it (kbs-protocol 3.6).
func (k *PrivateKey) JWK() api.JWK { return k.half.jwk() }

// PEM returns the private key as guests hand it on: PKCS#8 for EC, PKCS#1 for
// RSA (guest-protocol 7.1). The others have no such form: [ErrNoPEM].
func (k *PrivateKey) PEM() (secret.Bytes, error) {
	blockType, der, err := k.half.der()
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(der)
	return secret.New(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der})), nil
}

// String hides the key from every printer of k; see also [PrivateKey.Format].
func (k *PrivateKey) String() string { return "private key (redacted)" }

// Format hides the key under every verb.
func (k *PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalJSON refuses.
func (k *PrivateKey) MarshalJSON() ([]byte, error) { return nil, secret.ErrMarshal }

func (k *PrivateKey) unwrap(h header, encryptedKey []byte) ([]byte, error) {
	cek, err := k.half.unwrap(h, encryptedKey)
	if err != nil {
		return nil, err
	}
	if len(cek) != cekBytes {
		clear(cek)
		return nil, ErrOpen
	}
	return cek, nil
}
