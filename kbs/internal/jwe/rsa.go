package jwe

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// RSA moduli in bits. Below the first, the protection is gone; above the
// second, a guest could buy the broker's time.
const (
	minRSA      = 2048
	maxRSA      = 8192
	generateRSA = 2048 // what the field's guests use
)

type rsaPublic struct{ key *rsa.PublicKey }

func parseRSA(jwk api.JWK) (*rsa.PublicKey, error) {
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

func (p rsaPublic) recipient(io.Reader) (*recipient, error) {
	return &recipient{header: header{Alg: AlgRSA, Enc: EncGCM}, rsa: p.key}, nil
}

type rsaPrivate struct{ key *rsa.PrivateKey }

func generateRSAKey() (*PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, generateRSA)
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	return &PrivateKey{AlgRSA, rsaPrivate{key}}, nil
}

func (k rsaPrivate) jwk() api.JWK {
	return api.JWK{Kty: "RSA", Alg: AlgRSA, N: encode(k.key.N.Bytes()), E: encode(big.NewInt(int64(k.key.E)).Bytes())}
}

func (k rsaPrivate) der() (string, []byte, error) {
	return "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.key), nil
}

func (k rsaPrivate) unwrap(h header, encryptedKey []byte) ([]byte, error) {
	if h.EPK != nil || h.EK != "" {
		return nil, errors.New("jwe: an RSA message has neither epk nor ek")
	}
	cek, err := rsa.DecryptOAEP(sha256.New(), nil, k.key, encryptedKey, nil)
	if errors.Is(err, rsa.ErrDecryption) {
		return nil, ErrOpen
	}
	return cek, err
}
