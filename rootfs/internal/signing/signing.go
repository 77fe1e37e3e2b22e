// Package signing reads the keys of whoever builds images, and signs statements
// with them in DSSE envelopes (Dead Simple Signing Envelope, protocol 1.0).
package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// ErrSignature says that an envelope was not signed by a key.
var ErrSignature = errors.New("the signature is not by this key")

// ReadKey reads a private key for documents: Ed25519, P-256 or P-384.
func ReadKey(name string) (crypto.Signer, error) {
	signer, err := given.Signer(name)
	if err != nil {
		return nil, err
	}
	_, err = digest(signer.Public(), nil)
	return signer, err
}

// An Envelope is a signed statement.
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"`
	Signatures  []Signature `json:"signatures"`
}

// Signature is one of an envelope. The key id is a hint, and proves nothing.
type Signature struct {
	KeyID string `json:"keyid,omitempty"`
	Sig   []byte `json:"sig"`
}

// preAuthentication is what is signed (DSSE, protocol.md).
func preAuthentication(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// Sign returns an envelope as JSON. The same key and payload give the same
// bytes, with ECDSA too (RFC 6979).
func Sign(key crypto.Signer, keyID, payloadType string, payload []byte) ([]byte, error) {
	message := preAuthentication(payloadType, payload)
	d, err := digest(key.Public(), message)
	if err != nil {
		return nil, err
	}
	sig, err := key.Sign(nil, d.bytes, d.hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	raw, err := json.Marshal(Envelope{payloadType, payload, []Signature{{keyID, sig}}})
	return append(raw, '\n'), err
}

// Open checks that the envelope has a signature by the key, and returns its
// payload. An error that is about the signature wraps [ErrSignature].
func Open(raw []byte, key crypto.PublicKey, payloadType string) ([]byte, error) {
	var e Envelope
	if err := strictjson.Decode(raw, &e); err != nil {
		return nil, fmt.Errorf("no DSSE envelope: %w", err)
	}
	if e.PayloadType != payloadType {
		return nil, fmt.Errorf("the envelope has a payload of type %.60q, wanted %s", e.PayloadType, payloadType)
	}
	d, err := digest(key, preAuthentication(e.PayloadType, e.Payload))
	if err != nil {
		return nil, err
	}
	for _, s := range e.Signatures {
		if verify(key, d, s.Sig) {
			return e.Payload, nil
		}
	}
	return nil, ErrSignature
}

type hashed struct {
	bytes []byte
	hash  crypto.Hash
}

// digest is what the key signs of a message: Ed25519 takes it whole.
func digest(key crypto.PublicKey, message []byte) (hashed, error) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return hashed{message, crypto.Hash(0)}, nil
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			sum := sha256.Sum256(message)
			return hashed{sum[:], crypto.SHA256}, nil
		case 384:
			sum := sha512.Sum384(message)
			return hashed{sum[:], crypto.SHA384}, nil
		}
	}
	return hashed{}, fmt.Errorf("a key of type %T is of no use here: want Ed25519, P-256 or P-384", key)
}

func verify(key crypto.PublicKey, d hashed, sig []byte) bool {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, d.bytes, sig)
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, d.bytes, sig)
	}
	return false
}
