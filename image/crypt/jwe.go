package crypt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// What ocicrypt's readers accept. All content ciphers of JWE authenticate.
var (
	jweKeyAlgorithms = []jose.KeyAlgorithm{jose.RSA_OAEP, jose.RSA_OAEP_256, jose.ECDH_ES_A128KW, jose.ECDH_ES_A192KW, jose.ECDH_ES_A256KW}
	jweCiphers       = []jose.ContentEncryption{jose.A128GCM, jose.A192GCM, jose.A256GCM, jose.A128CBC_HS256, jose.A192CBC_HS384, jose.A256CBC_HS512}
)

// A jweRecipient is a public key. Its packet is a JWE of one recipient in the
// JSON form, with the algorithms that every reader of the field knows.
type jweRecipient struct {
	key       crypto.PublicKey
	algorithm jose.KeyAlgorithm
}

func newJWERecipient(doc []byte) (Recipient, error) {
	key, algorithm, err := parsePublicKey(doc)
	if err != nil {
		return nil, err
	}
	if algorithm != "" {
		return jweRecipient{key: key, algorithm: algorithm}, nil
	}
	switch key.(type) {
	case *rsa.PublicKey:
		return jweRecipient{key: key, algorithm: jose.RSA_OAEP}, nil
	case *ecdsa.PublicKey:
		return jweRecipient{key: key, algorithm: jose.ECDH_ES_A256KW}, nil
	}
	return nil, errors.New("a JWE recipient needs an RSA or an ECDSA key")
}

func (r jweRecipient) Wrap(private secret.Bytes) (WrappedKey, error) {
	e, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: r.algorithm, Key: r.key}, nil)
	if err != nil {
		return WrappedKey{}, fmt.Errorf("wrap for %s: %w", r, err)
	}
	sealed, err := e.Encrypt(private.Reveal())
	if err != nil {
		return WrappedKey{}, fmt.Errorf("wrap for %s: %w", r, err)
	}
	return WrappedKey{Scheme: SchemeJWE, Packet: []byte(sealed.FullSerialize())}, nil
}

func (r jweRecipient) String() string { return "jwe " + fingerprint(r.key) }

// unwrapJWE tries every key for every recipient of the packet.
func (k *Keyring) unwrapJWE(packet []byte) (secret.Bytes, error) {
	sealed, err := jose.ParseEncryptedJSON(string(packet), jweKeyAlgorithms, jweCiphers)
	if err != nil {
		return secret.Bytes{}, errors.New("the JWE packet is not well formed")
	}
	for _, key := range k.keys {
		if _, _, plain, err := sealed.DecryptMulti(key); err == nil {
			return secret.New(plain), nil
		}
	}
	return secret.Bytes{}, fmt.Errorf("%w the JWE packet", ErrNoKey)
}

// DecryptKey is how the library asks for a key that it does not get to see
// (RFC 7518 section 4.3: OAEP without a label, MGF1 with the same hash).
func (k keptKey) DecryptKey(sealed []byte, header jose.Header) ([]byte, error) {
	hashes := map[jose.KeyAlgorithm]crypto.Hash{jose.RSA_OAEP: crypto.SHA1, jose.RSA_OAEP_256: crypto.SHA256}
	h, ok := hashes[jose.KeyAlgorithm(header.Algorithm)]
	if !ok {
		return nil, jose.ErrUnsupportedAlgorithm
	}
	return k.Decrypt(nil, sealed, &rsa.OAEPOptions{Hash: h})
}
