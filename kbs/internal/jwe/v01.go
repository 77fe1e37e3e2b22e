package jwe

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// AlgRSA15 is what guests of protocol 0.1.0 and 0.1.1 offer (kbs-protocol 3.7).
// Whoever can ask such a guest whether a padding was right can decrypt with its
// key, so no other function of this package knows it.
const AlgRSA15 = "RSA1_5"

// UnsafeCheckV01 is [Check] for guests of protocol 0.1.
func UnsafeCheckV01(jwk api.JWK) error {
	_, err := parseV01(jwk)
	return err
}

func parseV01(jwk api.JWK) (*rsa.PublicKey, error) {
	if jwk.Kty != "RSA" || jwk.Alg != AlgRSA15 {
		return nil, fmt.Errorf("jwe: a guest of protocol 0.1 has an RSA key with alg %s", AlgRSA15)
	}
	return parseRSA(jwk)
}

// UnsafeSealV01 encrypts plaintext as protocol 0.1 has it: the content key
// under PKCS#1 v1.5, the header as plain text that nothing authenticates, the
// tag at the end of the ciphertext (kbs-protocol 3.7). Randomness is as in
// [Seal].
func UnsafeSealV01(random io.Reader, jwk api.JWK, plaintext []byte) (api.JWE, error) {
	if random == nil {
		random = rand.Reader
	}
	if len(plaintext) > MaxPlaintext {
		return api.JWE{}, fmt.Errorf("jwe: a secret has at most %d bytes", MaxPlaintext)
	}
	key, err := parseV01(jwk)
	if err != nil {
		return api.JWE{}, err
	}
	text, err := json.Marshal(header{Alg: AlgRSA15, Enc: EncGCM})
	if err != nil {
		return api.JWE{}, err
	}
	cek, iv, err := draw(random)
	if err != nil {
		return api.JWE{}, err
	}
	defer clear(cek)
	//nolint:staticcheck // deprecated, and all that these guests can open
	encryptedKey, err := rsa.EncryptPKCS1v15(random, key, cek)
	if err != nil {
		return api.JWE{}, fmt.Errorf("jwe: %w", err)
	}
	gcm, err := contentCipher(cek)
	if err != nil {
		return api.JWE{}, err
	}
	return api.JWE{
		Protected:    string(text),
		EncryptedKey: encode(encryptedKey),
		IV:           encode(iv),
		Ciphertext:   encode(gcm.Seal(nil, iv, plaintext, nil)),
	}, nil
}
