package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/rsapub"
)

// Scheme is a TPM_ALG_ID of a signature scheme.
type Scheme uint16

// The schemes that are accepted.
const (
	RSASSA Scheme = 0x0014 // PKCS #1 v1.5
	RSAPSS Scheme = 0x0016
	ECDSA  Scheme = 0x0018
)

// String returns the name of the scheme.
func (s Scheme) String() string {
	switch s {
	case RSASSA:
		return "RSASSA"
	case RSAPSS:
		return "RSAPSS"
	case ECDSA:
		return "ECDSA"
	}
	return fmt.Sprintf("scheme 0x%04x", uint16(s))
}

// Sizes of keys and signatures.
const (
	minRSABits   = 2048
	maxRSABits   = 4096
	maxSignature = maxRSABits / 8
)

// Signature is a TPMT_SIGNATURE.
type Signature struct {
	Scheme Scheme
	Hash   eventlog.Algorithm
	RSA    []byte // of an RSA scheme
	R, S   []byte // of ECDSA, big endian
}

// ParseSignature reads a TPMT_SIGNATURE of a known scheme, and no trailing
// bytes.
func ParseSignature(raw []byte) (*Signature, error) {
	r := newReader(raw)
	s := &Signature{Scheme: Scheme(r.U16()), Hash: eventlog.Algorithm(r.U16())}
	switch s.Scheme {
	case RSASSA, RSAPSS:
		s.RSA = r.sizedUpTo(maxSignature)
	case ECDSA:
		s.R, s.S = r.sized(), r.sized()
	default:
		return nil, fmt.Errorf("TPM signature: %s is not accepted", s.Scheme)
	}
	if r.Err == nil && r.At != len(raw) {
		r.Err = errors.New("bytes after its end")
	}
	if r.Err != nil {
		return nil, fmt.Errorf("TPM signature: %w", r.Err)
	}
	return s, nil
}

// Marshal returns the TPMT_SIGNATURE.
func (s *Signature) Marshal() []byte {
	out := binary.BigEndian.AppendUint16(nil, uint16(s.Scheme))
	out = binary.BigEndian.AppendUint16(out, uint16(s.Hash))
	if s.Scheme == ECDSA {
		return appendSized(appendSized(out, s.R), s.S)
	}
	return appendSized(out, s.RSA)
}

// Verify checks that the key signed the message. Keys of less than 2048 bits,
// curves other than P-256, P-384 and P-521, and SHA-1 are refused.
func (s *Signature) Verify(key crypto.PublicKey, message []byte) error {
	return s.VerifyPrepared(key, nil, message)
}

// VerifyPrepared is Verify with a key that was prepared, or not, for a signature
// of the scheme [RSASSA].
func (s *Signature) VerifyPrepared(key crypto.PublicKey, prepared *rsapub.Key, message []byte) error {
	hash, ok := s.Hash.Hash()
	if !ok || s.Hash == eventlog.SHA1 {
		return fmt.Errorf("a signature with %s is not accepted", s.Hash)
	}
	digest := s.Hash.Sum(message)
	switch key := key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Errorf("an RSA key of %d bits is not accepted", n)
		}
		switch s.Scheme {
		case RSASSA:
			if prepared != nil {
				return prepared.VerifyPKCS1v15(hash, digest, s.RSA)
			}
			return rsa.VerifyPKCS1v15(key, hash, digest, s.RSA)
		case RSAPSS:
			return rsa.VerifyPSS(key, hash, digest, s.RSA, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto})
		case ECDSA:
		}
	case *ecdsa.PublicKey:
		if s.Scheme != ECDSA {
			break
		}
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return errors.New("the key's curve is not accepted")
		}
		if !ecdsa.Verify(key, digest, new(big.Int).SetBytes(s.R), new(big.Int).SetBytes(s.S)) {
			return errors.New("the ECDSA signature does not verify")
		}
		return nil
	}
	return fmt.Errorf("a %s signature does not go with a key of type %T", s.Scheme, key)
}
