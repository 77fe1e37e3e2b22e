package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
)

// A Signer is a key of the token that signs: RSA of 2048 bits and more by PKCS#1
// v1.5, or ECDSA on P-256, P-384 or P-521.
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
		h, err := t.signingKey(l, s, p)
		if err == nil {
			out.public, err = t.publicOf(s, h)
		}
		return err
	})
	return out, err
}

// signingKey finds a private key, and remembers it for this login.
func (t *Token) signingKey(l *login, s pkcs11.SessionHandle, p Pair) (pkcs11.ObjectHandle, error) {
	type signingOf struct{ label, id string }
	at := signingOf{p.Label, p.ID}
	if h, ok := l.handles.Load(at); ok {
		return h.(pkcs11.ObjectHandle), nil
	}
	found, err := t.find(s, append(p.like(pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true)), 1)
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, fmt.Errorf("%w: no private key that may sign is called %s", ErrUnknown, p)
	}
	got, err := t.lib.GetAttributeValue(s, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil)})
	if err != nil {
		return 0, fmt.Errorf("read a key's attributes: %w", err)
	}
	if !bytes.Equal(got[0].Value, []byte{1}) || !bytes.Equal(got[1].Value, []byte{0}) {
		return 0, fmt.Errorf("%w: the private key can be read out of the token", ErrKey)
	}
	l.handles.Store(at, found[0])
	return found[0], nil
}

// publicOf returns the public half of a private key.
func (t *Token) publicOf(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	got, err := t.lib.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil)})
	if err != nil {
		return nil, fmt.Errorf("read a key's attributes: %w", err)
	}
	kind := func(k uint) bool { return bytes.Equal(got[0].Value, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, k).Value) }
	switch {
	case kind(pkcs11.CKK_RSA):
		if _, err := t.judgePair(s, h, pkcs11.CKO_PRIVATE_KEY); err != nil {
			return nil, err
		}
		return t.modulus(s, h)
	case kind(pkcs11.CKK_EC):
		return t.point(s, h)
	}
	return nil, fmt.Errorf("%w: a key of type %x: RSA and EC are", ErrKey, got[0].Value)
}

// point returns the public half of an EC key, which is in another object: that
// with the same label and CKA_ID. That it is the right one is seen when something
// was signed.
func (t *Token) point(s pkcs11.SessionHandle, private pkcs11.ObjectHandle) (*ecdsa.PublicKey, error) {
	got, err := t.lib.GetAttributeValue(s, private, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil), pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
	if err != nil {
		return nil, fmt.Errorf("read a key's attributes: %w", err)
	}
	twin := Pair{Label: string(got[0].Value), ID: string(got[1].Value)}
	if twin.Label == "" && twin.ID == "" {
		return nil, fmt.Errorf("%w: it has neither a label nor a CKA_ID to find its public half by", ErrKey)
	}
	found, err := t.find(s, append(twin.like(pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC)), 1)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fmt.Errorf("%w: the token has no public key called %s, which belongs to the private one", ErrUnknown, twin)
	}
	got, err = t.lib.GetAttributeValue(s, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, fmt.Errorf("read a key's attributes: %w", err)
	}
	return parsePoint(got[0].Value, got[1].Value)
}

// The curves' names (RFC 5480 section 2.1.1.1).
var curves = map[string]elliptic.Curve{
	"1.2.840.10045.3.1.7": elliptic.P256(), "1.3.132.0.34": elliptic.P384(), "1.3.132.0.35": elliptic.P521(),
}

// parsePoint reads CKA_EC_PARAMS and CKA_EC_POINT: an OCTET STRING with an
// uncompressed point (PKCS#11 2.40 section 2.3.3), or the point as it is, which
// some tokens give.
func parsePoint(params, raw []byte) (*ecdsa.PublicKey, error) {
	var name asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(params, &name); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: its curve has no name", ErrKey)
	}
	curve, ok := curves[name.String()]
	if !ok {
		return nil, fmt.Errorf("%w: it is on curve %s: P-256, P-384 and P-521 are supported", ErrKey, name)
	}
	var point []byte
	if rest, err := asn1.Unmarshal(raw, &point); err != nil || len(rest) > 0 {
		point = raw
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("%w: its public point: %w", ErrKey, err)
	}
	return key, nil
}

// Sign has the token sign a digest. What it made is verified: a public half that
// is another key's would make signatures that nobody accepts.
func (t *Token) Sign(ctx context.Context, k Signer, h crypto.Hash, digest []byte) ([]byte, error) {
	if hashNames[h] == nil || len(digest) != h.Size() {
		return nil, fmt.Errorf("%w: %d bytes are no digest by SHA-2", ErrSize, len(digest))
	}
	var mechanism uint
	var input []byte
	switch k.public.(type) {
	case *rsa.PublicKey:
		info, err := digestInfo(h, digest)
		if err != nil {
			return nil, err
		}
		mechanism, input = pkcs11.CKM_RSA_PKCS, info
	case *ecdsa.PublicKey:
		mechanism, input = pkcs11.CKM_ECDSA, digest
	}
	var raw []byte
	err := t.use(ctx, func(l *login, s pkcs11.SessionHandle) error {
		key, err := t.signingKey(l, s, k.pair)
		if err != nil {
			return err
		}
		if err := t.lib.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, key); err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		if raw, err = t.lib.Sign(s, input); err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return k.finish(h, digest, raw)
}

// finish puts a signature of the token into the form of X.509, and verifies it.
func (s Signer) finish(h crypto.Hash, digest, raw []byte) ([]byte, error) {
	switch key := s.public.(type) {
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(key, h, digest, raw) == nil {
			return raw, nil
		}
	case *ecdsa.PublicKey:
		half := len(raw) / 2
		sig, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
		if err == nil && len(raw)%2 == 0 && ecdsa.VerifyASN1(key, digest, sig) {
			return sig, nil
		}
	}
	return nil, fmt.Errorf("%w: the public key beside it does not verify what it signed", ErrKey)
}

// The hashes' names (RFC 8017 appendix B.1).
var hashNames = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
}

// digestInfo is what PKCS#1 v1.5 pads (RFC 8017 section 9.2).
func digestInfo(h crypto.Hash, digest []byte) ([]byte, error) {
	return asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}{pkix.AlgorithmIdentifier{Algorithm: hashNames[h], Parameters: asn1.NullRawValue}, digest})
}
