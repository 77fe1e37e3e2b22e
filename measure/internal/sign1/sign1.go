// Package sign1 signs documents that travel (COSE_Sign1, RFC 9052 section 4.2),
// with the keys that people have: Ed25519, P-256 or P-384. The key decides the
// algorithm, never the message.
package sign1

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/veraison/go-cose"
)

// Sign returns a signed message of a content type, in CBOR. The key id tells a
// reader which key to look for; it is a hint and proves nothing.
func Sign(payload []byte, contentType, keyID string, key crypto.Signer) ([]byte, error) {
	alg, err := algorithm(key.Public())
	if err != nil {
		return nil, err
	}
	signer, err := cose.NewSigner(alg, key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	m := cose.NewSign1Message()
	m.Headers.Protected.SetAlgorithm(alg)
	m.Headers.Protected[cose.HeaderLabelContentType] = contentType
	if keyID != "" {
		m.Headers.Protected[cose.HeaderLabelKeyID] = []byte(keyID)
	}
	m.Payload = payload
	if err := m.Sign(rand.Reader, nil, signer); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return m.MarshalCBOR()
}

// Verify checks the signature of a message. One with parameters that a reader must
// understand (RFC 9052, section 3.1, crit) is refused: nothing here understands any.
func Verify(m *cose.Sign1Message, key crypto.PublicKey) error {
	if _, ok := m.Headers.Protected[cose.HeaderLabelCritical]; ok {
		return errors.New("critical parameters of the protected header are not known")
	}
	alg, err := algorithm(key)
	if err != nil {
		return err
	}
	v, err := cose.NewVerifier(alg, key)
	if err != nil {
		return err
	}
	return m.Verify(nil, v)
}

func algorithm(key crypto.PublicKey) (cose.Algorithm, error) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return cose.AlgorithmEdDSA, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return cose.AlgorithmES256, nil
		case elliptic.P384():
			return cose.AlgorithmES384, nil
		}
	}
	return 0, fmt.Errorf("documents are signed with Ed25519, P-256 or P-384, not with %T", key)
}
