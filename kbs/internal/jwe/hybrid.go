package jwe

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// The hybrid joins ML-KEM-768 with X25519, so that who wants to read a recorded
// answer must break both: a quantum computer does not help against the one, nor
// a flaw in the young one against the other (docs/adr/0010).
const (
	hybridKeyBits = 256
	x25519Size    = 32 // public keys and shared secrets, in bytes

	hybridPublic     = mlkem.EncapsulationKeySize768 + x25519Size
	hybridCiphertext = mlkem.CiphertextSize768 + x25519Size
)

// hybridPublicKey is pub as the guest sends it: the ML-KEM-768 encapsulation
// key, then the X25519 key. Ciphertexts have the same order.
type hybridPublicKey struct {
	pub   []byte
	mlkem *mlkem.EncapsulationKey768
	point *ecdh.PublicKey
}

func parseHybrid(jwk api.JWK) (public, error) {
	pub, err := decode(jwk.Pub, hybridPublic)
	if err != nil {
		return nil, fmt.Errorf("jwe: hybrid key: %w", err)
	}
	if len(pub) != hybridPublic {
		return nil, fmt.Errorf("jwe: a hybrid key has %d bytes, this one %d", hybridPublic, len(pub))
	}
	kem, err := mlkem.NewEncapsulationKey768(pub[:mlkem.EncapsulationKeySize768])
	if err != nil {
		return nil, fmt.Errorf("jwe: hybrid key: %w", err)
	}
	point, err := x25519Point(pub[mlkem.EncapsulationKeySize768:])
	if err != nil {
		return nil, fmt.Errorf("jwe: hybrid key: %w", err)
	}
	return hybridPublicKey{pub, kem, point}, nil
}

// x25519Point refuses points of low order: with such a one every private key
// agrees on the same secret. Any key finds out.
func x25519Point(b []byte) (*ecdh.PublicKey, error) {
	p, err := ecdh.X25519().NewPublicKey(b)
	if err != nil {
		return nil, err
	}
	probe, err := ecdh.X25519().NewPrivateKey(make([]byte, x25519Size))
	if err != nil {
		return nil, err
	}
	if _, err := probe.ECDH(p); err != nil {
		return nil, errors.New("the X25519 point has low order")
	}
	return p, nil
}

func (p hybridPublicKey) recipient(random io.Reader) (*recipient, error) {
	seed := make([]byte, x25519Size)
	defer clear(seed)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("jwe: draw key: %w", err)
	}
	ephemeral, err := ecdh.X25519().NewPrivateKey(seed)
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	shared, ciphertext := p.mlkem.Encapsulate()
	return p.join(shared, ciphertext, ephemeral)
}

// join takes ownership of the ML-KEM secret.
func (p hybridPublicKey) join(shared, ciphertext []byte, ephemeral *ecdh.PrivateKey) (*recipient, error) {
	z, err := ephemeral.ECDH(p.point)
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	ciphertext = append(ciphertext, ephemeral.PublicKey().Bytes()...)
	return kemRecipient(AlgHybrid, ciphertext, hybridKey(shared, z, ciphertext, p.pub)), nil
}

// hybridKey derives the key-wrapping key from both secrets, and binds both
// ciphertexts and both public keys: each secret is bound to its exchange. The
// secrets are cleared.
func hybridKey(shared, z, ciphertext, pub []byte) []byte {
	secrets := append(append(make([]byte, 0, len(shared)+len(z)), shared...), z...)
	defer clear(secrets)
	defer clear(shared)
	defer clear(z)
	return kemKey(secrets, AlgHybrid, hybridKeyBits, ciphertext, pub)
}

type hybridPrivate struct {
	mlkem *mlkem.DecapsulationKey768
	point *ecdh.PrivateKey
}

func generateHybrid() (*PrivateKey, error) {
	kem, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	point, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	return &PrivateKey{AlgHybrid, hybridPrivate{kem, point}}, nil
}

func (k hybridPrivate) pub() []byte {
	return append(k.mlkem.EncapsulationKey().Bytes(), k.point.PublicKey().Bytes()...)
}

func (k hybridPrivate) jwk() api.JWK {
	return api.JWK{Kty: "AKP", Alg: AlgHybrid, Pub: encode(k.pub())}
}

func (hybridPrivate) der() (string, []byte, error) { return "", nil, ErrNoPEM }

func (k hybridPrivate) unwrap(h header, encryptedKey []byte) ([]byte, error) {
	ciphertext, err := kemCiphertext(h, hybridCiphertext)
	if err != nil {
		return nil, err
	}
	shared, err := k.mlkem.Decapsulate(ciphertext[:mlkem.CiphertextSize768])
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	theirs, err := ecdh.X25519().NewPublicKey(ciphertext[mlkem.CiphertextSize768:])
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	z, err := k.point.ECDH(theirs) // refuses a point of low order
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	kek := hybridKey(shared, z, ciphertext, k.pub())
	defer clear(kek)
	return unwrapKey(kek, encryptedKey)
}
