package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// maxChain limits the certificates of one key.
const maxChain = 8

// key is a key pair that signs tokens, or the public half of one that signs
// them elsewhere. It does not change once it is made.
type key struct {
	id      string
	public  *ecdsa.PublicKey
	chain   []*x509.Certificate // leaf first; a root, if any, last
	url     string              // of the chain, shown as x5u
	private *ecdsa.PrivateKey   // nil: it only verifies here
	header  string              // the JOSE header of its tokens, encoded
}

// newKey joins what belongs together. Tokens are signed with ES256 and nothing
// else (kbs-protocol 10), so the key must be on P-256.
func newKey(public *ecdsa.PublicKey, private *ecdsa.PrivateKey, chain []*x509.Certificate, url string) (*key, error) {
	switch {
	case public.Curve != elliptic.P256():
		return nil, fmt.Errorf("token key: want a key on P-256, this is on %s", public.Curve.Params().Name)
	case private != nil && !private.PublicKey.Equal(public):
		return nil, errors.New("token key: the two halves do not belong together")
	case len(chain) > maxChain:
		return nil, fmt.Errorf("token key: more than %d certificates", maxChain)
	case len(chain) > 0 && !public.Equal(chain[0].PublicKey):
		return nil, errors.New("token key: the first certificate is not that of the key")
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	sum := sha256.Sum256(spki)
	k := &key{id: hex.EncodeToString(sum[:16]), public: public, private: private, chain: chain, url: url}
	k.header, err = k.encodeHeader()
	return k, err
}

// jwk is the key with the members that kbs-protocol 10 names.
func (k *key) jwk() (api.PublicKey, error) {
	raw, err := k.public.Bytes() // 4, x, y: 32 bytes each
	if err != nil {
		return api.PublicKey{}, fmt.Errorf("token key: %w", err)
	}
	enc := base64.RawURLEncoding
	return api.PublicKey{
		Kty: "EC", Crv: "P-256", Alg: "ES256",
		X: enc.EncodeToString(raw[1:33]), Y: enc.EncodeToString(raw[33:]), X5U: k.url,
	}, nil
}

// encodeHeader is done once: it is the same for every token of the key. The
// root is left out: who trusts it has it, and tokens travel in request heads.
func (k *key) encodeHeader() (string, error) {
	j, err := k.jwk()
	if err != nil {
		return "", err
	}
	for i, c := range k.chain {
		if i > 0 && bytes.Equal(c.RawIssuer, c.RawSubject) {
			break
		}
		j.X5C = append(j.X5C, c.Raw)
	}
	raw, err := json.Marshal(struct {
		Typ string        `json:"typ"`
		Alg string        `json:"alg"`
		Kid string        `json:"kid"`
		JWK api.PublicKey `json:"jwk"`
	}{"JWT", string(jose.ES256), k.id, j})
	if err != nil {
		return "", fmt.Errorf("token header: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

// published is the key as a key set shows it: with its name and, root
// included, its chain.
func (k *key) published() (api.PublicKey, error) {
	j, err := k.jwk()
	j.Use, j.Kid = "sig", k.id
	for _, c := range k.chain {
		j.X5C = append(j.X5C, c.Raw)
	}
	return j, err
}

// sign returns a compact JWS (RFC 7515 section 3.1).
func (k *key) sign(payload []byte) (string, error) {
	if k.private == nil {
		return "", fmt.Errorf("token key %s: its private half is not here", k.id)
	}
	enc := base64.RawURLEncoding
	out := make([]byte, 0, len(k.header)+2+enc.EncodedLen(len(payload))+enc.EncodedLen(64))
	out = append(out, k.header...)
	out = append(out, '.')
	out = enc.AppendEncode(out, payload)
	sum := sha256.Sum256(out)
	r, s, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	var sig [64]byte // two big-endian numbers (RFC 7518 section 3.4)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	out = append(out, '.')
	return string(enc.AppendEncode(out, sig[:])), nil
}

// marshal writes a key for the ring: its private half, if it has one, and the
// chain.
func (k *key) marshal() (secret.Bytes, error) {
	var out bytes.Buffer
	block := &pem.Block{}
	var err error
	if k.private != nil {
		block.Type = "PRIVATE KEY"
		block.Bytes, err = x509.MarshalPKCS8PrivateKey(k.private)
	} else {
		block.Type = "PUBLIC KEY"
		block.Bytes, err = x509.MarshalPKIXPublicKey(k.public)
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("encode token key: %w", err)
	}
	defer clear(block.Bytes)
	_ = pem.Encode(&out, block) // a buffer takes everything
	for _, c := range k.chain {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return secret.New(out.Bytes()), nil
}

// parseKey reads what marshal wrote, and the key files of the field: PKCS #8
// or SEC 1 (kbs-protocol 10), with certificates after the key or without any.
func parseKey(text secret.Bytes, url string) (*key, error) {
	block, rest := pem.Decode(text.Reveal())
	if block != nil && block.Type == "EC PARAMETERS" {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New("token key: not PEM")
	}
	chain, err := parseCertificates(rest)
	if err != nil {
		return nil, err
	}
	var parsed any
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "PUBLIC KEY":
		parsed, err = x509.ParsePKIXPublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("token key: the first block is %q", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	switch k := parsed.(type) {
	case *ecdsa.PrivateKey:
		return newKey(&k.PublicKey, k, chain, url)
	case *ecdsa.PublicKey:
		return newKey(k, nil, chain, url)
	}
	return nil, fmt.Errorf("token key: want an ECDSA key, have %T", parsed)
}

// parseCertificates reads a PEM file of nothing but certificates.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return nil, errors.New("certificates: something there is not PEM")
			}
			return out, nil
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("certificates: a block is %q", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		out = append(out, c)
	}
}
