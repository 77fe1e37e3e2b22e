package crypt

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A Keyring unwraps JWE, PKCS#7 and PKCS#11 packets with private keys that are
// at hand, or that somebody keeps who decrypts with them. The zero value has none
// and opens nothing. It is filled before it is used, and then safe for concurrent
// use if the decrypters are.
type Keyring struct{ keys []crypto.PrivateKey }

// ErrNoKey says that a packet is of a kind which a [Keyring] opens, and for none of its
// keys.
var ErrNoKey = errors.New("no private key opens")

// AddDecrypter adds an RSA key that is not at hand, for example of a token. It is
// asked for OAEP alone ([*rsa.OAEPOptions]) and so opens PKCS#11 packets, and JWE
// ones with RSA-OAEP or RSA-OAEP-256; not PKCS#7, whose padding would make of
// whoever answers an oracle.
func (k *Keyring) AddDecrypter(d crypto.Decrypter) error {
	key, ok := d.Public().(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("a key of type %T decrypts nothing: RSA is needed", d.Public())
	}
	if err := checkPublic(key); err != nil {
		return err
	}
	k.keys = append(k.keys, keptKey{d})
	return nil
}

// A keptKey is an RSA key that only its keeper sees.
type keptKey struct{ crypto.Decrypter }

// Add reads a private key, RSA or ECDSA: PEM or DER (PKCS#8, PKCS#1, SEC 1) or a
// JWK, without a password. The errors quote nothing of it.
func (k *Keyring) Add(doc secret.Bytes) error {
	if doc.Len() > maxOptions {
		return errors.New("the private key is too large")
	}
	key, err := parseDecryptionKey(doc.Reveal())
	if err != nil {
		return err
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		err = checkPublic(&key.PublicKey)
	case *ecdsa.PrivateKey:
	default:
		err = fmt.Errorf("a private key of type %T opens nothing: RSA or ECDSA is needed", key)
	}
	if err == nil {
		k.keys = append(k.keys, key)
	}
	return err
}

func parseDecryptionKey(doc []byte) (crypto.PrivateKey, error) {
	der := doc
	if block, _ := pem.Decode(doc); block != nil {
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the private key has a password (package keyfile takes it off)")
		}
		der = block.Bytes
		defer clear(der)
	}
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(doc) == nil && !jwk.IsPublic() {
		return jwk.Key, nil
	}
	return nil, errors.New("not a private key: PEM or DER (PKCS#8, PKCS#1, SEC 1), or a JWK, is needed")
}

// decrypters are the keys that decrypt by themselves: RSA, at hand or not.
func (k *Keyring) decrypters() []crypto.Decrypter {
	var list []crypto.Decrypter
	for _, key := range k.keys {
		if d, ok := key.(crypto.Decrypter); ok {
			list = append(list, d)
		}
	}
	return list
}

// Unwrap opens a packet with the first key that fits.
func (k *Keyring) Unwrap(_ context.Context, w WrappedKey) (secret.Bytes, error) {
	if len(w.Packet) > maxPacket {
		return secret.Bytes{}, fmt.Errorf("key packet of %d bytes, at most %d are read", len(w.Packet), maxPacket)
	}
	switch w.Scheme {
	case SchemeJWE:
		return k.unwrapJWE(w.Packet)
	case SchemePKCS7:
		return k.unwrapPKCS7(w.Packet)
	case SchemePKCS11:
		return k.unwrapPKCS11(w.Packet)
	case SchemeProvider, schemePGP:
	}
	return secret.Bytes{}, schemeError(w)
}
