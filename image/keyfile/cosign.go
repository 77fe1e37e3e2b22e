package keyfile

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/secretbox"

	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// The blocks in which cosign keeps its keys, the older one before its version
// 2. Both hold the JSON of The Update Framework's encrypted keys: scrypt makes a
// key of the password, NaCl's secretbox (XSalsa20 and Poly1305) holds a PKCS#8
// key in DER. Unlike CBC it authenticates.
const (
	cosignBlock    = "ENCRYPTED SIGSTORE PRIVATE KEY"
	oldCosignBlock = "ENCRYPTED COSIGN PRIVATE KEY"

	boxKey   = 32 // bytes
	boxNonce = 24
)

func ofCosign(blockType string) bool { return blockType == cosignBlock || blockType == oldCosignBlock }

// A box is what such a block holds.
type box struct {
	cost  scryptCost
	salt  []byte
	nonce [boxNonce]byte
	data  []byte
}

type boxJSON struct {
	KDF struct {
		Name   string `json:"name"`
		Params struct {
			N int `json:"N"`
			R int `json:"r"`
			P int `json:"p"`
		} `json:"params"`
		Salt []byte `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

func parseBox(raw []byte) (box, error) {
	var b box
	var doc boxJSON
	if err := strictjson.Decode(raw, &doc); err != nil {
		return b, errors.New("not well formed") // what the library says may quote the key
	}
	b.cost = scryptCost{n: doc.KDF.Params.N, r: doc.KDF.Params.R, p: doc.KDF.Params.P}
	b.salt, b.data = doc.KDF.Salt, doc.Ciphertext
	switch {
	case doc.KDF.Name != "scrypt":
		return b, fmt.Errorf("key derivation %.40q is not supported: scrypt is", doc.KDF.Name)
	case doc.Cipher.Name != "nacl/secretbox":
		return b, fmt.Errorf("cipher %.40q is not supported: nacl/secretbox is", doc.Cipher.Name)
	case len(b.salt) == 0 || len(b.salt) > maxSalt:
		return b, fmt.Errorf("a salt of %d bytes", len(b.salt))
	case copy(b.nonce[:], doc.Cipher.Nonce) != boxNonce || len(doc.Cipher.Nonce) != boxNonce:
		return b, fmt.Errorf("a nonce of %d bytes, want %d", len(doc.Cipher.Nonce), boxNonce)
	case len(b.data) <= secretbox.Overhead:
		return b, errors.New("it holds nothing")
	}
	return b, b.cost.check()
}

// open returns the key in DER.
func (b box) open(password secret.Bytes) ([]byte, error) {
	derived, err := b.cost.key(password.Reveal(), b.salt, boxKey)
	if err != nil {
		return nil, err
	}
	defer clear(derived)
	var key [boxKey]byte
	copy(key[:], derived)
	defer clear(key[:])
	der, ok := secretbox.Open(nil, b.data, &b.nonce, &key)
	if !ok {
		return nil, ErrPassword
	}
	return der, nil
}
