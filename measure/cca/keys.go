package cca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/veraison/go-cose"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// algorithmOf returns the one algorithm that a key signs with (RFC 9053, table
// 1, and the usual match of hash and curve).
func algorithmOf(key *ecdsa.PublicKey) (cose.Algorithm, error) {
	switch key.Curve {
	case elliptic.P256():
		return cose.AlgorithmES256, nil
	case elliptic.P384():
		return cose.AlgorithmES384, nil
	case elliptic.P521():
		return cose.AlgorithmES512, nil
	}
	return 0, fmt.Errorf("a key on %s", key.Curve.Params().Name)
}

// point makes a key of an uncompressed point, which must be on the curve.
func point(curve elliptic.Curve, x, y []byte) (*ecdsa.PublicKey, error) {
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size {
		return nil, fmt.Errorf("coordinates of %d and %d bytes, want %d", len(x), len(y), size)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, bytes.Join([][]byte{{4}, x, y}, nil))
}

// realmKey reads the RAK: a COSE_Key, or in tokens of the first edition the
// bare point on P-384.
func realmKey(raw []byte) (*ecdsa.PublicKey, error) {
	if len(raw) == 97 && raw[0] == 4 {
		return ecdsa.ParseUncompressedPublicKey(elliptic.P384(), raw)
	}
	var k struct {
		Type  int64  `cbor:"1,keyasint"`
		Alg   *int64 `cbor:"3,keyasint,omitempty"`
		Curve int64  `cbor:"-1,keyasint"`
		X     []byte `cbor:"-2,keyasint"`
		Y     []byte `cbor:"-3,keyasint"`
	}
	if err := strict.Unmarshal(raw, &k); err != nil {
		return nil, err
	}
	if k.Type != int64(cose.KeyTypeEC2) || k.Curve != int64(cose.CurveP384) {
		return nil, fmt.Errorf("key type %d on curve %d, want an EC2 key on P-384", k.Type, k.Curve)
	}
	if k.Alg != nil && *k.Alg != int64(cose.AlgorithmES384) {
		return nil, fmt.Errorf("a key for algorithm %d, want ES384", *k.Alg)
	}
	return point(elliptic.P384(), k.X, k.Y)
}

// hashByName finds an algorithm by its name in IANA's registry.
func hashByName(name string) (crypto.Hash, error) {
	switch name {
	case "sha-256":
		return crypto.SHA256, nil
	case "sha-384":
		return crypto.SHA384, nil
	case "sha-512":
		return crypto.SHA512, nil
	}
	return 0, fmt.Errorf("hash algorithm %.40q is not one of sha-256, sha-384, sha-512", name)
}

func sum(name string, data []byte) ([]byte, error) {
	h, err := hashByName(name)
	if err != nil {
		return nil, err
	}
	d := h.New()
	d.Write(data)
	return d.Sum(nil), nil
}

// anchor is the key of one machine.
type anchor struct {
	store          *store
	implementation [32]byte
	instance       [33]byte
	key            *ecdsa.PublicKey
}

// store is a trust store under its name.
type store struct {
	name      string
	simulated bool
}

// Limits of a trust store.
const (
	maxStore   = 16 << 20 // bytes
	maxAnchors = 65536
)

// wireAnchor is one entry of a trust store, in the form that the field's
// verifier reads: the machine's public key as a JWK, and hex.
type wireAnchor struct {
	Key            json.RawMessage `json:"pkey"`
	Implementation string          `json:"implementation-id"`
	Instance       string          `json:"instance-id"`
}

// parseStore reads a trust store.
func parseStore(s *store, raw []byte) ([]anchor, error) {
	if len(raw) > maxStore {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(raw), maxStore)
	}
	var entries []wireAnchor
	if err := strictjson.Decode(raw, &entries); err != nil {
		return nil, err
	}
	if len(entries) == 0 || len(entries) > maxAnchors {
		return nil, fmt.Errorf("%d keys, want 1 to %d", len(entries), maxAnchors)
	}
	out := make([]anchor, len(entries))
	for i, e := range entries {
		a := anchor{store: s}
		var err error
		if a.key, err = parseJWK(e.Key); err != nil {
			return nil, fmt.Errorf("entry %d: pkey: %w", i, err)
		}
		if err := errors.Join(hexInto(a.implementation[:], e.Implementation), hexInto(a.instance[:], e.Instance)); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		out[i] = a
	}
	return out, nil
}

// parseJWK reads a public key on a NIST curve (RFC 7518 section 6.2).
func parseJWK(raw json.RawMessage) (*ecdsa.PublicKey, error) {
	var k struct {
		Type    string `json:"kty"`
		Curve   string `json:"crv"`
		X       string `json:"x"`
		Y       string `json:"y"`
		Private string `json:"d"`
	}
	if err := strictjson.Decode(raw, &k); err != nil {
		return nil, err
	}
	if k.Private != "" {
		return nil, errors.New("a private key does not belong into a trust store")
	}
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Curve]
	if k.Type != "EC" || curve == nil {
		return nil, fmt.Errorf("a key of type %.20q on %.20q, want EC on P-256, P-384 or P-521", k.Type, k.Curve)
	}
	x, errX := base64.RawURLEncoding.Strict().DecodeString(k.X)
	y, errY := base64.RawURLEncoding.Strict().DecodeString(k.Y)
	if err := errors.Join(errX, errY); err != nil {
		return nil, err
	}
	return point(curve, x, y)
}

func hexInto(field []byte, text string) error {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(field) {
		return fmt.Errorf("%.80q is not the hex of %d bytes", text, len(field))
	}
	copy(field, b)
	return nil
}

// thumbprint is the SHA-256 of the uncompressed point.
func thumbprint(key *ecdsa.PublicKey) string {
	b, err := key.Bytes()
	if err != nil {
		return ""
	}
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// published are keys of machines whose private half everybody has: those of
// examples. Evidence under one proves nothing, so no trust store may have one;
// a simulated root may.
var published = map[string]string{
	"9bdb470456c7c1348349e88f38540f43e7a7993ac32e9c9a0b3c8d8733cc63f0": "the example token of the Veraison and Confidential Containers projects",
}
