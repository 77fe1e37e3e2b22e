// Package signing reads the keys of whoever builds images, and signs statements
// with them in DSSE envelopes (Dead Simple Signing Envelope, protocol 1.0).
package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// maxKey bounds the file of a key, in bytes.
const maxKey = 64 << 10

// ErrSignature says that an envelope was not signed by a key.
var ErrSignature = errors.New("the signature is not by this key")

// ReadKey reads a private key: PKCS#8 in PEM, Ed25519, P-256 or P-384. Others must
// not be able to read the file.
func ReadKey(name string) (crypto.Signer, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others may read this private key (mode %v): chmod 600 %s", name, info.Mode().Perm(), name)
	}
	raw, err := readPEM(name, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a key of type %T does not sign", name, key)
	}
	_, err = digest(signer.Public(), nil)
	return signer, err
}

// ReadPublicKey reads a public key in PEM.
func ReadPublicKey(name string) (crypto.PublicKey, error) {
	raw, err := readPEM(name, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// readPEM reads no more than a key is long, of whatever kind the file is.
func readPEM(name, kind string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKey+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(raw) > maxKey {
		return nil, fmt.Errorf("%s has more than %d bytes, and is no key", name, maxKey)
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s is not a %s in PEM", name, kind)
	}
	return block.Bytes, nil
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
