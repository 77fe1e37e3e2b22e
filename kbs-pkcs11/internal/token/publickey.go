package token

import (
	"context"
	"crypto/rsa"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
)

// PublicKey returns the public key of a pair, as the private key tells it: many
// tokens have no other object.
func (t *Token) PublicKey(ctx context.Context, p Pair) (*rsa.PublicKey, error) {
	var key *rsa.PublicKey
	err := t.use(ctx, func(l *login, s pkcs11.SessionHandle) error {
		h, err := t.half(l, s, p, pkcs11.CKO_PRIVATE_KEY)
		if err == nil {
			key, err = t.modulus(s, h.handle)
		}
		return err
	})
	return key, err
}

// modulus reads the public half of an RSA key.
func (t *Token) modulus(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) (*rsa.PublicKey, error) {
	got, err := t.lib.GetAttributeValue(s, h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, nil),
	})
	if err != nil {
		return nil, fmt.Errorf("read a key's attributes: %w", err)
	}
	e := new(big.Int).SetBytes(got[1].Value)
	if e.BitLen() < 2 || e.BitLen() > 31 {
		return nil, fmt.Errorf("%w: its public exponent has %d bits", ErrKey, e.BitLen())
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(got[0].Value), E: int(e.Int64())}, nil
}
