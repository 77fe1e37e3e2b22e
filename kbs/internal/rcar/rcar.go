// Package rcar computes what both ends of the handshake (Request, Challenge,
// Attestation, Response) must agree on to the bit: the digests that bind
// evidence to a nonce and a guest key. Client and broker both call it, so that
// there is one reading of the specification.
package rcar

import (
	"crypto"
	_ "crypto/sha256" // linked in for crypto.SHA256
	_ "crypto/sha512" // linked in for crypto.SHA384 and crypto.SHA512
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jcs"
)

// DefaultHash is used when the challenge selects none (kbs-protocol 3.2).
const DefaultHash = crypto.SHA384

// ErrUnsupportedHash means that a hash name is not known, or known to the
// protocol but not built here (sm3).
var ErrUnsupportedHash = errors.New("rcar: unsupported hash algorithm")

// SupportedHashes returns the names for supported-hash-algorithms, weakest
// first as the field's clients list them.
func SupportedHashes() []string { return []string{"sha256", "sha384", "sha512"} }

// ParseHash returns the hash of a wire name. Case does not matter
// (kbs-protocol 0). Any other name is [ErrUnsupportedHash].
func ParseHash(name string) (crypto.Hash, error) {
	switch strings.ToLower(name) {
	case "sha256":
		return crypto.SHA256, nil
	case "sha384":
		return crypto.SHA384, nil
	case "sha512":
		return crypto.SHA512, nil
	}
	return 0, fmt.Errorf("%w %.32q", ErrUnsupportedHash, name)
}

// The three shapes of a guest key (kbs-protocol 3.6). Each has exactly the
// members that are hashed; all are required.
type (
	ecKey struct {
		Alg string `json:"alg"`
		Crv string `json:"crv"`
		Kty string `json:"kty"`
		X   string `json:"x"`
		Y   string `json:"y"`
	}
	rsaKey struct {
		Alg string `json:"alg"`
		E   string `json:"e"`
		Kty string `json:"kty"`
		N   string `json:"n"`
	}
	akpKey struct {
		Alg string `json:"alg"`
		Kty string `json:"kty"`
		Pub string `json:"pub"`
	}
)

// ReduceJWK drops the members that the key's type does not have, as the
// protocol demands before hashing (kbs-protocol 3.6 and 20.2). It refuses an
// unknown type and a missing member. It does not look at the key itself: that
// happens when something is encrypted to it.
func ReduceJWK(k api.JWK) (api.JWK, error) {
	var r api.JWK
	switch k.Kty {
	case "EC":
		r = api.JWK{Kty: k.Kty, Crv: k.Crv, Alg: k.Alg, X: k.X, Y: k.Y}
		return r, complete(r.Alg, r.Crv, r.X, r.Y)
	case "RSA":
		r = api.JWK{Kty: k.Kty, Alg: k.Alg, N: k.N, E: k.E}
		return r, complete(r.Alg, r.N, r.E)
	case "AKP":
		r = api.JWK{Kty: k.Kty, Alg: k.Alg, Pub: k.Pub}
		return r, complete(r.Alg, r.Pub)
	}
	return api.JWK{}, fmt.Errorf("rcar: key type %.16q is not EC, RSA or AKP", k.Kty)
}

func complete(members ...string) error {
	for _, m := range members {
		if m == "" {
			return errors.New("rcar: the guest key lacks a member")
		}
		if !utf8.ValidString(m) {
			return errors.New("rcar: the guest key is not UTF-8")
		}
	}
	return nil
}

// typed returns the reduced key in the shape that is hashed.
func typed(k api.JWK) (any, error) {
	r, err := ReduceJWK(k)
	if err != nil {
		return nil, err
	}
	switch r.Kty {
	case "EC":
		return ecKey{Alg: r.Alg, Crv: r.Crv, Kty: r.Kty, X: r.X, Y: r.Y}, nil
	case "RSA":
		return rsaKey{Alg: r.Alg, E: r.E, Kty: r.Kty, N: r.N}, nil
	default:
		return akpKey{Alg: r.Alg, Kty: r.Kty, Pub: r.Pub}, nil
	}
}

// PrimaryDigest returns the digest that the CPU's evidence must contain. The
// additional evidence is bound as a string, "" when there are no devices
// (kbs-protocol 3.5).
func PrimaryDigest(h crypto.Hash, rd api.RuntimeData, additionalEvidence string) ([]byte, error) {
	key, err := typed(rd.TEEPubKey)
	if err != nil {
		return nil, err
	}
	if !utf8.ValidString(additionalEvidence) {
		return nil, errors.New("rcar: the additional evidence is not UTF-8")
	}
	return digest(h, rd.Nonce, struct {
		AdditionalEvidence string `json:"additional-evidence"`
		Nonce              string `json:"nonce"`
		TEEPubKey          any    `json:"tee-pubkey"`
	}{additionalEvidence, rd.Nonce, key})
}

// DeviceDigest returns the digest that the evidence of every additional device
// must contain (kbs-protocol 3.5).
func DeviceDigest(h crypto.Hash, rd api.RuntimeData) ([]byte, error) {
	key, err := typed(rd.TEEPubKey)
	if err != nil {
		return nil, err
	}
	return digest(h, rd.Nonce, struct {
		Nonce     string `json:"nonce"`
		TEEPubKey any    `json:"tee-pubkey"`
	}{rd.Nonce, key})
}

func digest(h crypto.Hash, nonce string, v any) ([]byte, error) {
	switch h {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return nil, ErrUnsupportedHash
	}
	if nonce == "" || !utf8.ValidString(nonce) {
		return nil, errors.New("rcar: the nonce is empty or not UTF-8")
	}
	text, err := jcs.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := h.New()
	sum.Write(text)
	return sum.Sum(nil), nil
}
