package token

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// signingKey is a private key, for one login.
type signingKey struct {
	handle pkcs11.ObjectHandle
	always bool // it wants the PIN for every signature (CKA_ALWAYS_AUTHENTICATE)
}

// signingKey finds a private key, and remembers it for this login.
func (t *Token) signingKey(l *login, s pkcs11.SessionHandle, p Pair) (signingKey, error) {
	type signingOf struct{ label, id string }
	at := signingOf{p.Label, p.ID}
	if k, ok := l.handles.Load(at); ok {
		return k.(signingKey), nil
	}
	var none signingKey
	found, err := t.find(s, append(p.like(pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true)), 1)
	switch {
	case err != nil:
		return none, err
	case len(found) == 0:
		return none, fmt.Errorf("%w: no private key that may sign is called %s", ErrUnknown, p)
	}
	got, err := t.lib.GetAttributeValue(s, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil)})
	if err != nil {
		return none, fmt.Errorf("read a key's attributes: %w", err)
	}
	if !bytes.Equal(got[0].Value, []byte{1}) || !bytes.Equal(got[1].Value, []byte{0}) {
		return none, fmt.Errorf("%w: the private key can be read out of the token", ErrKey)
	}
	k := signingKey{handle: found[0]}
	if k.always, err = t.alwaysAuthenticate(s, k.handle); err != nil {
		return none, err
	}
	l.handles.Store(at, k)
	return k, nil
}

// alwaysAuthenticate reads what tokens with older versions of the standard do not
// know.
func (t *Token) alwaysAuthenticate(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) (bool, error) {
	got, err := t.lib.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ALWAYS_AUTHENTICATE, nil)})
	switch {
	case is(err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read a key's attributes: %w", err)
	}
	return bytes.Equal(got[0].Value, []byte{1}), nil
}

// ckkECEdwards is CKK_EC_EDWARDS of PKCS#11 3.0.
const ckkECEdwards = 0x40

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
		return t.point(s, h, pkcs11.CKK_EC, parsePoint)
	case kind(ckkECEdwards):
		return t.point(s, h, ckkECEdwards, parseEdwards)
	}
	return nil, fmt.Errorf("%w: a key of type %x: RSA, EC and Edwards are", ErrKey, got[0].Value)
}

// point returns the public half of an EC key, which is in another object. That it
// is the right one is seen when something was signed.
func (t *Token) point(s pkcs11.SessionHandle, private pkcs11.ObjectHandle, kind uint, parse func(params, raw []byte) (crypto.PublicKey, error)) (crypto.PublicKey, error) {
	got, err := t.lib.GetAttributeValue(s, private, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil), pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
	if err != nil {
		return nil, fmt.Errorf("read a key's attributes: %w", err)
	}
	twin, err := t.twin(s, Pair{Label: string(got[0].Value), ID: string(got[1].Value)}, kind)
	if err != nil {
		return nil, err
	}
	got, err = t.lib.GetAttributeValue(s, twin, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, fmt.Errorf("read a key's attributes: %w", err)
	}
	return parse(got[0].Value, got[1].Value)
}

// twin finds the public key that belongs to a private one: that with the same
// label and CKA_ID, or else the same CKA_ID, since cards give the two labels of
// their own, or else the same label.
func (t *Token) twin(s pkcs11.SessionHandle, p Pair, kind uint) (pkcs11.ObjectHandle, error) {
	for _, like := range []Pair{p, {ID: p.ID}, {Label: p.Label}} {
		if like.Label == "" && like.ID == "" {
			continue
		}
		found, err := t.find(s, append(like.like(pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, kind)), 1)
		if err != nil {
			return 0, err
		}
		if len(found) == 1 {
			return found[0], nil
		}
	}
	return 0, fmt.Errorf("%w: the token has no public key with the label %q or the CKA_ID %x, which belongs to the private one", ErrUnknown, p.Label, p.ID)
}

// The curves' names (RFC 5480 section 2.1.1.1).
var curves = map[string]elliptic.Curve{
	"1.2.840.10045.3.1.7": elliptic.P256(), "1.3.132.0.34": elliptic.P384(), "1.3.132.0.35": elliptic.P521(),
}

// parsePoint reads CKA_EC_PARAMS and CKA_EC_POINT: an OCTET STRING with an
// uncompressed point (PKCS#11 2.40 section 2.3.3), or the point as it is, which
// some tokens give.
func parsePoint(params, raw []byte) (crypto.PublicKey, error) {
	var name asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(params, &name); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: its curve has no name", ErrKey)
	}
	curve, ok := curves[name.String()]
	if !ok {
		return nil, fmt.Errorf("%w: it is on curve %s: P-256, P-384 and P-521 are supported", ErrKey, name)
	}
	point, err := octets(raw, 1+2*((curve.Params().BitSize+7)/8))
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("%w: its public point: %w", ErrKey, err)
	}
	return key, nil
}

// oidEd25519 is id-Ed25519 (RFC 8410 section 3).
var oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}

// parseEdwards is parsePoint for keys of CKK_EC_EDWARDS, whose curve has a name
// of one of two kinds (PKCS#11 3.0 section 2.3.10).
func parseEdwards(params, raw []byte) (crypto.PublicKey, error) {
	var oid asn1.ObjectIdentifier
	var name string
	rest, err := asn1.Unmarshal(params, &oid)
	if err != nil {
		rest, err = asn1.Unmarshal(params, &name)
	}
	if err != nil || len(rest) > 0 || !oid.Equal(oidEd25519) && name != "edwards25519" {
		return nil, fmt.Errorf("%w: of Edwards curves, edwards25519 is supported", ErrKey)
	}
	point, err := octets(raw, ed25519.PublicKeySize)
	if err != nil {
		return nil, err
	}
	return ed25519.PublicKey(point), nil
}

// octets returns the content of an OCTET STRING that has size bytes, or those
// bytes as they are. The length tells which: a bare point may begin as an OCTET
// STRING does.
func octets(raw []byte, size int) ([]byte, error) {
	if len(raw) == size {
		return raw, nil
	}
	var content []byte
	rest, err := asn1.Unmarshal(raw, &content)
	if err == nil && (len(rest) > 0 || len(content) != size) {
		err = errors.New("it has another length")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: its public point: %w", ErrKey, err)
	}
	return content, nil
}
