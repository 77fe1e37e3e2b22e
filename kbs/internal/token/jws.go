package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384 and crypto.SHA512
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// maxHeader limits the JOSE header of a token, in encoded bytes: a chain of a
// few certificates fits.
const maxHeader = 64 << 10

// compact is a JWS in compact form (RFC 7515 section 3.1). Nothing of it is
// verified by reading it. There is one reader, so that what chose the key and
// what is verified cannot be two things.
type compact struct {
	header    header
	payload   []byte
	covered   string // by the signature
	signature []byte
}

type header struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	JWK       json.RawMessage `json:"jwk"`
	Critical  json.RawMessage `json:"crit"`
	Unencoded json.RawMessage `json:"b64"`
}

// parseCompact reads a token. Headers that change what a signature means
// (crit, b64) are refused, not ignored.
func parseCompact(text string) (c compact, err error) {
	last := strings.LastIndexByte(text, '.')
	if last < 0 {
		return c, errors.New("not a token")
	}
	head, body, ok := strings.Cut(text[:last], ".")
	if !ok || strings.Contains(body, ".") || len(head) > maxHeader {
		return c, errors.New("not a token")
	}
	enc := base64.RawURLEncoding.Strict()
	raw, err := enc.DecodeString(head)
	if err != nil {
		return c, fmt.Errorf("header: %w", err)
	}
	if err := strictjson.Decode(raw, &c.header); err != nil {
		return c, fmt.Errorf("header: %w", err)
	}
	if c.header.Critical != nil || c.header.Unencoded != nil {
		return c, errors.New("header: an extension that must be understood is not")
	}
	if c.payload, err = enc.DecodeString(body); err != nil {
		return c, fmt.Errorf("payload: %w", err)
	}
	if c.signature, err = enc.DecodeString(text[last+1:]); err != nil {
		return c, fmt.Errorf("signature: %w", err)
	}
	c.covered = text[:last]
	return c, nil
}

// errSignature says no more than that: which byte was wrong is nobody's
// business.
var errSignature = errors.New("the signature is wrong")

// verify checks the signature with a public key (RFC 7518 section 3). The
// caller has made sure that the algorithm is one that this key may use.
func (c compact) verify(public any) error {
	var ok bool
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		h := map[jose.SignatureAlgorithm]crypto.Hash{jose.ES256: crypto.SHA256, jose.ES384: crypto.SHA384, jose.ES512: crypto.SHA512}
		size := (k.Curve.Params().BitSize + 7) / 8
		sum := c.digest(h)
		if sum == nil || len(c.signature) != 2*size {
			return errSignature
		}
		r, s := new(big.Int).SetBytes(c.signature[:size]), new(big.Int).SetBytes(c.signature[size:])
		ok = ecdsa.Verify(k, sum, r, s)
	case *rsa.PublicKey:
		ok = c.verifyRSA(k)
	case ed25519.PublicKey:
		ok = c.header.Algorithm == string(jose.EdDSA) && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, []byte(c.covered), c.signature)
	}
	if !ok {
		return errSignature
	}
	return nil
}

func (c compact) verifyRSA(k *rsa.PublicKey) bool {
	pkcs1 := map[jose.SignatureAlgorithm]crypto.Hash{jose.RS256: crypto.SHA256, jose.RS384: crypto.SHA384, jose.RS512: crypto.SHA512}
	if sum := c.digest(pkcs1); sum != nil {
		return rsa.VerifyPKCS1v15(k, pkcs1[jose.SignatureAlgorithm(c.header.Algorithm)], sum, c.signature) == nil
	}
	pss := map[jose.SignatureAlgorithm]crypto.Hash{jose.PS256: crypto.SHA256, jose.PS384: crypto.SHA384, jose.PS512: crypto.SHA512}
	if sum := c.digest(pss); sum != nil {
		h := pss[jose.SignatureAlgorithm(c.header.Algorithm)]
		return rsa.VerifyPSS(k, h, sum, c.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}) == nil
	}
	return false
}

// digest returns nil if the token's algorithm is not among those of a family.
func (c compact) digest(of map[jose.SignatureAlgorithm]crypto.Hash) []byte {
	h, ok := of[jose.SignatureAlgorithm(c.header.Algorithm)]
	if !ok {
		return nil
	}
	sum := h.New()
	_, _ = sum.Write([]byte(c.covered))
	return sum.Sum(nil)
}
