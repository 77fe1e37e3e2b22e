// Package keyfile opens and locks private keys that lie in files under a
// password: PKCS#8 in PEM, as openssl writes it (RFC 5958 section 3, RFC 8018
// PBES2, RFC 7914 for scrypt), and cosign's own form. What comes out is the same
// key without one, which the packages crypt and ship read. Only tools use it: a
// guest has no passwords.
package keyfile

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the default of RFC 8018; keys of others are read, none is written with it
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	lockedBlock = "ENCRYPTED PRIVATE KEY"
	plainBlock  = "PRIVATE KEY"

	maxFile       = 64 << 10 // bytes
	maxIterations = 5_000_000
	maxSalt       = 1024

	ownIterations = 600_000 // of PBKDF2 with SHA-256
	ownSalt       = 16
)

// ErrPassword says that a password does not open a key. Where a file is damaged,
// it may say so too.
var ErrPassword = errors.New("the password does not open the private key")

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidScrypt = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	oidSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidAES256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// digests are those of HMAC in PBKDF2.
var digests = map[string]func() hash.Hash{
	oidSHA1.String():      sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	oidSHA256.String():    sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
}

// keySizes are those of AES in CBC mode, in bytes.
var keySizes = map[string]int{"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, oidAES256.String(): 32}

// The structures of RFC 5958 and RFC 8018, appendix A.
type lockedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2 struct {
	KDF    pkix.AlgorithmIdentifier
	Cipher pkix.AlgorithmIdentifier
}

type kdf struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// scryptParams are those of RFC 7914 section 7.1.
type scryptParams struct {
	Salt      []byte
	N, R, P   int
	KeyLength int `asn1:"optional"`
}

// Locked reports whether the file wants a password.
func Locked(doc secret.Bytes) bool {
	block, _ := pem.Decode(doc.Reveal())
	return block != nil && (block.Type == lockedBlock || ofCosign(block.Type) || block.Headers["DEK-Info"] != "")
}

// Unlock returns the key in PEM, without a password. The errors quote nothing of
// it.
func Unlock(doc, password secret.Bytes) (secret.Bytes, error) {
	var none secret.Bytes
	if doc.Len() > maxFile {
		return none, fmt.Errorf("private key of %d bytes, at most %d are read", doc.Len(), maxFile)
	}
	block, _ := pem.Decode(doc.Reveal())
	switch {
	case block == nil:
		return none, errors.New("the private key is not PEM")
	case block.Headers["DEK-Info"] != "":
		return none, errors.New("the password of the private key is of OpenSSL's old form, which hardly protects: openssl pkcs8 -topk8 writes the other")
	case block.Type != lockedBlock && !ofCosign(block.Type):
		return none, fmt.Errorf("a PEM block %.60q has no password", block.Type)
	}
	der, err := openBlock(block, password)
	if err != nil {
		return none, err
	}
	defer clear(der)
	if _, err := x509.ParsePKCS8PrivateKey(der); err != nil {
		return none, ErrPassword // CBC authenticates nothing: a wrong password may end here
	}
	return secret.New(pem.EncodeToMemory(&pem.Block{Type: plainBlock, Bytes: der})), nil
}

// openBlock returns the key of a locked block in DER.
func openBlock(block *pem.Block, password secret.Bytes) ([]byte, error) {
	var locked interface {
		open(password secret.Bytes) ([]byte, error)
	}
	var err error
	if ofCosign(block.Type) {
		locked, err = parseBox(block.Bytes)
	} else {
		locked, err = parseLock(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("private key with a password: %w", err)
	}
	return locked.open(password)
}

// Lock puts a key in PEM, PKCS#8 without a password, under one.
func Lock(doc, password secret.Bytes) (secret.Bytes, error) {
	block, _ := pem.Decode(doc.Reveal())
	if block == nil || block.Type != plainBlock || password.Len() == 0 {
		return secret.Bytes{}, errors.New("a private key (PKCS#8, PEM) and a password are needed")
	}
	defer clear(block.Bytes)
	l := lock{salt: make([]byte, ownSalt), iterations: ownIterations, digest: sha256.New, keySize: 32, iv: make([]byte, aes.BlockSize)}
	_, _ = rand.Read(l.salt) // never fails
	_, _ = rand.Read(l.iv)
	mode, err := l.cipher(password, cipher.NewCBCEncrypter)
	if err != nil {
		return secret.Bytes{}, err
	}
	pad := aes.BlockSize - len(block.Bytes)%aes.BlockSize
	data := make([]byte, len(block.Bytes), len(block.Bytes)+pad)
	copy(data, block.Bytes)
	for range pad {
		data = append(data, byte(pad))
	}
	mode.CryptBlocks(data, data)
	der, err := l.marshal(data)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(pem.EncodeToMemory(&pem.Block{Type: lockedBlock, Bytes: der})), nil
}
