package jwe

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// A curve of the ECDH-ES family, with the length of a coordinate in bytes.
type curve struct {
	name string
	size int
	top  byte // mask for the first byte of a random scalar
	ecdh ecdh.Curve
}

func curves() []curve {
	return []curve{
		{"P-256", 32, 0xff, ecdh.P256()},
		{"P-384", 48, 0xff, ecdh.P384()},
		{"P-521", 66, 0x01, ecdh.P521()},
	}
}

func curveOf(name string) (curve, error) {
	for _, c := range curves() {
		if c.name == name {
			return c, nil
		}
	}
	return curve{}, fmt.Errorf("jwe: curve %.16q is not supported", name)
}

// draw takes a scalar from random, by trying candidates (FIPS 186-5, A.2.2).
// crypto/ecdh ignores the reader it is given, and vectors need theirs.
func (c curve) draw(random io.Reader) (*ecdh.PrivateKey, error) {
	b := make([]byte, c.size)
	defer clear(b)
	for range 64 { // each try fails with probability below 2^-1
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, fmt.Errorf("jwe: draw key: %w", err)
		}
		b[0] &= c.top
		if key, err := c.ecdh.NewPrivateKey(b); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("jwe: the random source gives no usable key")
}

// point reads coordinates of exactly the curve's length; a point off the curve
// is refused, or the shared secret would tell something about the private key.
func (c curve) point(x, y string) (*ecdh.PublicKey, error) {
	xb, err1 := decode(x, c.size)
	yb, err2 := decode(y, c.size)
	if err1 != nil || err2 != nil || len(xb) != c.size || len(yb) != c.size {
		return nil, fmt.Errorf("jwe: coordinates of %s have %d bytes in base64url", c.name, c.size)
	}
	p, err := c.ecdh.NewPublicKey(append(append([]byte{4}, xb...), yb...))
	if err != nil {
		return nil, fmt.Errorf("jwe: no point of %s: %w", c.name, err)
	}
	return p, nil
}

func (c curve) coordinates(p *ecdh.PublicKey) (x, y string) {
	b := p.Bytes() // 4, x, y
	return encode(b[1 : 1+c.size]), encode(b[1+c.size:])
}

type ecPublic struct {
	curve curve
	point *ecdh.PublicKey
}

func parseEC(jwk api.JWK) (public, error) {
	c, err := curveOf(jwk.Crv)
	if err != nil {
		return nil, err
	}
	p, err := c.point(jwk.X, jwk.Y)
	if err != nil {
		return nil, err
	}
	return ecPublic{c, p}, nil
}

func (p ecPublic) recipient(random io.Reader) (*recipient, error) {
	ephemeral, err := p.curve.draw(random)
	if err != nil {
		return nil, err
	}
	kek, err := agree(ephemeral, p.point)
	if err != nil {
		return nil, err
	}
	epk := &ephemeralKey{Crv: p.curve.name, Kty: "EC"}
	epk.X, epk.Y = p.curve.coordinates(ephemeral.PublicKey())
	return &recipient{header: header{Alg: AlgECDH, Enc: EncGCM, EPK: epk}, kek: kek}, nil
}

// agree derives the key-wrapping key. crypto/ecdh returns the x-coordinate in
// full length, as RFC 7518 wants it.
func agree(own *ecdh.PrivateKey, other *ecdh.PublicKey) ([]byte, error) {
	z, err := own.ECDH(other)
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	defer clear(z)
	return concatKDF(z, AlgECDH, nil, nil, 256), nil
}

type ecPrivate struct {
	curve curve
	key   *ecdh.PrivateKey
}

func generateEC(name string) (*PrivateKey, error) {
	c, err := curveOf(name)
	if err != nil {
		return nil, err
	}
	key, err := c.ecdh.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	return &PrivateKey{AlgECDH, ecPrivate{c, key}}, nil
}

func (k ecPrivate) jwk() api.JWK {
	j := api.JWK{Kty: "EC", Crv: k.curve.name, Alg: AlgECDH}
	j.X, j.Y = k.curve.coordinates(k.key.PublicKey())
	return j
}

func (k ecPrivate) der() (string, []byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.key)
	if err != nil {
		return "", nil, fmt.Errorf("jwe: %w", err)
	}
	return "PRIVATE KEY", der, nil
}

func (k ecPrivate) unwrap(h header, encryptedKey []byte) ([]byte, error) {
	epk := h.EPK
	if epk == nil || epk.Kty != "EC" || epk.Crv != k.curve.name || h.EK != "" {
		return nil, fmt.Errorf("jwe: epk is not an EC key on %s", k.curve.name)
	}
	theirs, err := k.curve.point(epk.X, epk.Y)
	if err != nil {
		return nil, err
	}
	kek, err := agree(k.key, theirs)
	if err != nil {
		return nil, err
	}
	defer clear(kek)
	return unwrapKey(kek, encryptedKey)
}
