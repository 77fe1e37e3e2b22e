package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
)

// ErrMechanism says that the token, or this key of it, does not sign in the way
// that was asked for.
var ErrMechanism = errors.New("token: it does not know the mechanism")

// MaxMessage is the longest message that Ed25519 signs, in bytes.
const MaxMessage = 32 << 10

// A Signer is a key of the token that signs: RSA of 2048 bits and more by PKCS#1
// v1.5 or RSASSA-PSS, ECDSA on P-256, P-384 or P-521, or Ed25519.
type Signer struct {
	pair   Pair
	public crypto.PublicKey
}

// Public returns the public key.
func (s Signer) Public() crypto.PublicKey { return s.public }

// Signer finds the one private key of a name that may sign.
func (t *Token) Signer(ctx context.Context, p Pair) (Signer, error) {
	out := Signer{pair: p}
	err := t.use(ctx, func(l *login, s pkcs11.SessionHandle) error {
		k, err := t.signingKey(l, s, p)
		if err == nil {
			out.public, err = t.publicOf(s, k.handle)
		}
		return err
	})
	return out, err
}

// Sign has the token sign in, as opts says: a digest, with RSA by PKCS#1 v1.5 or,
// for [*rsa.PSSOptions], by RSASSA-PSS with a salt as long as the digest; or a
// message, for Ed25519. What it made is verified: a public half that is another
// key's would make signatures that nobody accepts.
func (t *Token) Sign(ctx context.Context, k Signer, opts crypto.SignerOpts, in []byte) ([]byte, error) {
	op, err := k.operation(opts, in)
	if err != nil {
		return nil, err
	}
	var raw []byte
	err = t.use(ctx, func(l *login, s pkcs11.SessionHandle) error {
		key, err := t.signingKey(l, s, k.pair)
		if err != nil {
			return err
		}
		raw, err = t.run(l, s, key, op)
		return err
	})
	if err != nil {
		return nil, err
	}
	if raw, err = op.finish(raw); err != nil {
		return nil, fmt.Errorf("%w: the public key beside it does not verify what it signed by %s", ErrKey, op.name)
	}
	return raw, nil
}

func (t *Token) run(l *login, s pkcs11.SessionHandle, key signingKey, op operation) ([]byte, error) {
	err := t.lib.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(op.mechanism, op.parameter)}, key.handle)
	if err == nil && key.always {
		if err = t.logIn(l.slot, s, pkcs11.CKU_CONTEXT_SPECIFIC); err != nil {
			return nil, err
		}
	}
	var raw []byte
	if err == nil {
		raw, err = t.lib.Sign(s, op.input)
	}
	switch {
	case is(err, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID):
		return nil, fmt.Errorf("%w %s, or this key may not be used with it", ErrMechanism, op.name)
	case err != nil:
		return nil, fmt.Errorf("sign by %s: %w", op.name, err)
	}
	return raw, nil
}

// An operation is one signature: what the token is asked for, and what becomes of
// its answer.
type operation struct {
	name      string // for people
	mechanism uint
	parameter any // as pkcs11.NewMechanism takes it
	input     []byte
	// finish puts the signature into the form of X.509, and verifies it.
	finish func(raw []byte) ([]byte, error)
}

// ckmEDDSA is CKM_EDDSA of PKCS#11 3.0; without a parameter it is Ed25519 as in
// RFC 8032 (section 2.3.14).
const ckmEDDSA = 0x1057

var errVerify = errors.New("the signature does not verify")

func verified(ok bool, sig []byte) ([]byte, error) {
	if !ok {
		return nil, errVerify
	}
	return sig, nil
}

func (s Signer) operation(opts crypto.SignerOpts, in []byte) (operation, error) {
	if key, ok := s.public.(ed25519.PublicKey); ok {
		if opts != crypto.Hash(0) || len(in) == 0 || len(in) > MaxMessage {
			return operation{}, fmt.Errorf("%w: Ed25519 signs a message of 1 to %d bytes, and not a digest", ErrSize, MaxMessage)
		}
		return operation{name: "CKM_EDDSA", mechanism: ckmEDDSA, input: in, finish: func(raw []byte) ([]byte, error) {
			return verified(len(raw) == ed25519.SignatureSize && ed25519.Verify(key, in, raw), raw)
		}}, nil
	}
	h := opts.HashFunc()
	known, ok := hashes[h]
	if !ok || len(in) != h.Size() {
		return operation{}, fmt.Errorf("%w: %d bytes are no digest by SHA-2", ErrSize, len(in))
	}
	pss, wanted := opts.(*rsa.PSSOptions)
	switch key := s.public.(type) {
	case *rsa.PublicKey:
		if wanted {
			return signPSS(key, known, pss, in)
		}
		return signPKCS1v15(key, known, in)
	case *ecdsa.PublicKey:
		if !wanted {
			return signECDSA(key, in), nil
		}
	}
	return operation{}, fmt.Errorf("%w: PSS is for RSA keys, this is one of type %T", ErrKey, s.public)
}

func signECDSA(key *ecdsa.PublicKey, digest []byte) operation {
	return operation{name: "CKM_ECDSA", mechanism: pkcs11.CKM_ECDSA, input: digest, finish: func(raw []byte) ([]byte, error) {
		half := len(raw) / 2
		sig, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
		if err != nil {
			return nil, err
		}
		return verified(len(raw)%2 == 0 && ecdsa.VerifyASN1(key, digest, sig), sig)
	}}
}

// signPSS has a salt as long as the digest and no other: JWS and COSE want it so
// (RFC 7518 section 3.5, RFC 8230 section 2).
func signPSS(key *rsa.PublicKey, h hash, o *rsa.PSSOptions, digest []byte) (operation, error) {
	if o.SaltLength != rsa.PSSSaltLengthEqualsHash && o.SaltLength != len(digest) {
		return operation{}, fmt.Errorf("%w: a salt of PSS is as long as the digest, and not %d", ErrSize, o.SaltLength)
	}
	return operation{
		name: "CKM_RSA_PKCS_PSS with " + h.hash.String(), mechanism: pkcs11.CKM_RSA_PKCS_PSS, input: digest,
		parameter: pkcs11.NewPSSParams(h.mechanism, h.mgf, uint(len(digest))),
		finish: func(raw []byte) ([]byte, error) {
			return raw, rsa.VerifyPSS(key, h.hash, digest, raw, &rsa.PSSOptions{SaltLength: len(digest)})
		},
	}, nil
}

func signPKCS1v15(key *rsa.PublicKey, h hash, digest []byte) (operation, error) {
	info, err := asn1.Marshal(struct { // what PKCS#1 v1.5 pads (RFC 8017 section 9.2)
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}{pkix.AlgorithmIdentifier{Algorithm: h.oid, Parameters: asn1.NullRawValue}, digest})
	if err != nil {
		return operation{}, err
	}
	return operation{name: "CKM_RSA_PKCS", mechanism: pkcs11.CKM_RSA_PKCS, input: info, finish: func(raw []byte) ([]byte, error) {
		return raw, rsa.VerifyPKCS1v15(key, h.hash, digest, raw)
	}}, nil
}

// A hash by its names: in ASN.1 (RFC 8017 appendix B.1), and for PSS.
type hash struct {
	hash           crypto.Hash
	oid            asn1.ObjectIdentifier
	mechanism, mgf uint
}

var hashes = map[crypto.Hash]hash{
	crypto.SHA256: {crypto.SHA256, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	crypto.SHA384: {crypto.SHA384, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384},
	crypto.SHA512: {crypto.SHA512, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
}
