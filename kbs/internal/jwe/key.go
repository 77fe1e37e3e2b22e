package jwe

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Names for [Generate], as guests write them in their configuration
// (kbs-protocol 3.6). P-384 is ours beside them; not every broker takes it.
const (
	KeyP256 = AlgECDH + "-P256"
	KeyP384 = AlgECDH + "-P384"
	KeyP521 = AlgECDH + "-P521"
	KeyRSA  = AlgRSA
)

// RSA moduli in bits. Below the first, the protection is gone; above the
// second, a guest could buy the broker's time.
const (
	minRSA      = 2048
	maxRSA      = 8192
	generateRSA = 2048 // what the field's guests use
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

// A recipient is a guest key made ready to wrap one content key.
type recipient struct {
	header header
	kek    []byte         // EC
	rsa    *rsa.PublicKey // RSA
}

func newRecipient(random io.Reader, jwk api.JWK) (*recipient, error) {
	switch {
	case jwk.Kty == "EC" && jwk.Alg == AlgECDH:
		return ecRecipient(random, jwk)
	case jwk.Kty == "RSA" && jwk.Alg == AlgRSA:
		pub, err := rsaPublic(jwk)
		if err != nil {
			return nil, err
		}
		return &recipient{header: header{Alg: AlgRSA, Enc: EncGCM}, rsa: pub}, nil
	}
	return nil, fmt.Errorf("jwe: a key of type %.16q with alg %.32q is not supported", jwk.Kty, jwk.Alg)
}

func ecRecipient(random io.Reader, jwk api.JWK) (*recipient, error) {
	c, err := curveOf(jwk.Crv)
	if err != nil {
		return nil, err
	}
	theirs, err := c.point(jwk.X, jwk.Y)
	if err != nil {
		return nil, err
	}
	ephemeral, err := c.draw(random)
	if err != nil {
		return nil, err
	}
	kek, err := agree(ephemeral, theirs)
	if err != nil {
		return nil, err
	}
	epk := &ephemeralKey{Crv: c.name, Kty: "EC"}
	epk.X, epk.Y = c.coordinates(ephemeral.PublicKey())
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

func rsaPublic(jwk api.JWK) (*rsa.PublicKey, error) {
	n, err1 := decode(jwk.N, maxRSA/8)
	e, err2 := decode(jwk.E, 4)
	if err1 != nil || err2 != nil || len(n) == 0 || n[0] == 0 || len(e) == 0 || e[0] == 0 {
		return nil, errors.New("jwe: RSA modulus or exponent is malformed")
	}
	pub := &rsa.PublicKey{N: new(big.Int).SetBytes(n)}
	exponent := new(big.Int).SetBytes(e).Int64()
	if bits := pub.N.BitLen(); bits < minRSA || bits > maxRSA || pub.N.Bit(0) == 0 {
		return nil, fmt.Errorf("jwe: an RSA key has an odd modulus of %d to %d bits", minRSA, maxRSA)
	}
	// RFC 8017 wants an odd exponent; 65537 and more is what FIPS 186-5 takes.
	if exponent < 65537 || exponent > 1<<31-1 || exponent%2 == 0 {
		return nil, errors.New("jwe: RSA exponent is out of range")
	}
	pub.E = int(exponent)
	return pub, nil
}

func (r *recipient) wrap(random io.Reader, cek []byte) ([]byte, error) {
	if r.rsa != nil {
		out, err := rsa.EncryptOAEP(sha256.New(), random, r.rsa, cek, nil)
		if err != nil {
			return nil, fmt.Errorf("jwe: %w", err)
		}
		return out, nil
	}
	defer clear(r.kek)
	return wrapKey(r.kek, cek)
}

// A PrivateKey is the guest's half: it opens what was sealed to [PrivateKey.JWK].
type PrivateKey struct {
	alg   string
	curve curve // EC
	ec    *ecdh.PrivateKey
	rsa   *rsa.PrivateKey
}

// curveName returns the curve of a name that [Generate] takes.
func curveName(alg string) (string, bool) {
	switch alg {
	case "", AlgECDH, KeyP256:
		return "P-256", true
	case KeyP384:
		return "P-384", true
	case KeyP521:
		return "P-521", true
	}
	return "", false
}

// KnownKey reports whether [Generate] takes this name.
func KnownKey(alg string) bool {
	_, ec := curveName(alg)
	return ec || alg == KeyRSA
}

// Generate makes a key: [KeyP256], [KeyP384], [KeyP521] or [KeyRSA] (2048
// bits). [AlgECDH] alone, or "", means P-256, the field's default.
func Generate(alg string) (*PrivateKey, error) {
	if name, ok := curveName(alg); ok {
		c, err := curveOf(name)
		if err != nil {
			return nil, err
		}
		key, err := c.ecdh.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("jwe: %w", err)
		}
		return &PrivateKey{alg: AlgECDH, curve: c, ec: key}, nil
	}
	if alg != KeyRSA {
		return nil, fmt.Errorf("jwe: key algorithm %.32q is not supported", alg)
	}
	key, err := rsa.GenerateKey(rand.Reader, generateRSA)
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	return &PrivateKey{alg: AlgRSA, rsa: key}, nil
}

// JWK returns the public half as the handshake sends it (kbs-protocol 3.6).
func (k *PrivateKey) JWK() api.JWK {
	if k.rsa != nil {
		return api.JWK{Kty: "RSA", Alg: AlgRSA, N: encode(k.rsa.N.Bytes()), E: encode(big.NewInt(int64(k.rsa.E)).Bytes())}
	}
	j := api.JWK{Kty: "EC", Crv: k.curve.name, Alg: AlgECDH}
	j.X, j.Y = k.curve.coordinates(k.ec.PublicKey())
	return j
}

// PEM returns the private key as guests hand it on: PKCS#8 for EC, PKCS#1 for
// RSA (guest-protocol 7.1).
func (k *PrivateKey) PEM() (secret.Bytes, error) {
	block := &pem.Block{Type: "PRIVATE KEY"}
	if k.rsa != nil {
		block.Type, block.Bytes = "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.rsa)
	} else {
		der, err := x509.MarshalPKCS8PrivateKey(k.ec)
		if err != nil {
			return secret.Bytes{}, fmt.Errorf("jwe: %w", err)
		}
		block.Bytes = der
	}
	defer clear(block.Bytes)
	return secret.New(pem.EncodeToMemory(block)), nil
}

// String hides the key from every printer of k; see also [PrivateKey.Format].
func (k *PrivateKey) String() string { return "private key (redacted)" }

// Format hides the key under every verb.
func (k *PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalJSON refuses.
func (k *PrivateKey) MarshalJSON() ([]byte, error) { return nil, secret.ErrMarshal }

// unwrap returns the content key of a message whose header names k's alg.
func (k *PrivateKey) unwrap(h header, encryptedKey []byte) ([]byte, error) {
	var cek []byte
	var err error
	if k.rsa != nil {
		if h.EPK != nil {
			return nil, errors.New("jwe: an RSA message has no epk")
		}
		cek, err = rsa.DecryptOAEP(sha256.New(), nil, k.rsa, encryptedKey, nil)
	} else {
		cek, err = k.unwrapEC(h.EPK, encryptedKey)
	}
	if err != nil {
		if errors.Is(err, rsa.ErrDecryption) {
			return nil, ErrOpen
		}
		return nil, err
	}
	if len(cek) != cekBytes {
		clear(cek)
		return nil, ErrOpen
	}
	return cek, nil
}

func (k *PrivateKey) unwrapEC(epk *ephemeralKey, encryptedKey []byte) ([]byte, error) {
	if epk == nil || epk.Kty != "EC" || epk.Crv != k.curve.name {
		return nil, fmt.Errorf("jwe: epk is not an EC key on %s", k.curve.name)
	}
	theirs, err := k.curve.point(epk.X, epk.Y)
	if err != nil {
		return nil, err
	}
	kek, err := agree(k.ec, theirs)
	if err != nil {
		return nil, err
	}
	defer clear(kek)
	return unwrapKey(kek, encryptedKey)
}
