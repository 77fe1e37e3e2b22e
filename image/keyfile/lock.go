package keyfile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A lock is how a password turns into a key and opens the data.
type lock struct {
	salt       []byte
	iterations int              // of PBKDF2
	digest     func() hash.Hash // of PBKDF2
	scrypt     *scryptCost      // in place of both
	keySize    int
	iv         []byte
	data       []byte
}

// parseLock reads an EncryptedPrivateKeyInfo with PBES2, AES-CBC, and PBKDF2,
// which is what openssl writes unless it is told otherwise, or scrypt.
func parseLock(der []byte) (lock, error) {
	var l lock
	var outer lockedKey
	if err := parseAll(der, &outer); err != nil {
		return l, err
	}
	var scheme pbes2
	if !outer.Algorithm.Algorithm.Equal(oidPBES2) {
		return l, fmt.Errorf("encryption %s is not supported: PBES2 is (openssl pkcs8 -topk8)", outer.Algorithm.Algorithm)
	}
	if err := parseAll(outer.Algorithm.Parameters.FullBytes, &scheme); err != nil {
		return l, err
	}
	if err := parseAll(scheme.Cipher.Parameters.FullBytes, &l.iv); err != nil {
		return l, err
	}
	l.data, l.keySize = outer.Data, keySizes[scheme.Cipher.Algorithm.String()]
	keyLength, err := l.derivation(scheme.KDF)
	switch {
	case err != nil:
		return l, err
	case l.keySize == 0:
		return l, fmt.Errorf("cipher %s is not supported: AES in CBC mode is", scheme.Cipher.Algorithm)
	case keyLength != 0 && keyLength != l.keySize, len(l.iv) != aes.BlockSize:
		return l, errors.New("the lengths of key or IV are not the cipher's")
	case len(l.salt) == 0 || len(l.salt) > maxSalt:
		return l, fmt.Errorf("a salt of %d bytes", len(l.salt))
	case len(l.data) == 0 || len(l.data)%aes.BlockSize != 0:
		return l, errors.New("the data is not whole blocks")
	}
	return l, nil
}

// derivation reads how the password becomes a key. The length of that key is 0
// where it is not told.
func (l *lock) derivation(by pkix.AlgorithmIdentifier) (keyLength int, err error) {
	switch {
	case by.Algorithm.Equal(oidScrypt):
		var p scryptParams
		if err := parseAll(by.Parameters.FullBytes, &p); err != nil {
			return 0, err
		}
		l.salt, l.scrypt = p.Salt, &scryptCost{n: p.N, r: p.R, p: p.P}
		return p.KeyLength, l.scrypt.check()
	case !by.Algorithm.Equal(oidPBKDF2):
		return 0, fmt.Errorf("key derivation %s is not supported: PBKDF2 and scrypt are", by.Algorithm)
	}
	var derive kdf
	if err := parseAll(by.Parameters.FullBytes, &derive); err != nil {
		return 0, err
	}
	if derive.PRF.Algorithm == nil {
		derive.PRF.Algorithm = oidSHA1 // RFC 8018 A.2
	}
	l.salt, l.iterations, l.digest = derive.Salt, derive.Iterations, digests[derive.PRF.Algorithm.String()]
	switch {
	case l.digest == nil:
		return 0, fmt.Errorf("digest %s is not supported", derive.PRF.Algorithm)
	case l.iterations < 1 || l.iterations > maxIterations:
		return 0, fmt.Errorf("%d iterations: 1 to %d are possible", l.iterations, maxIterations)
	}
	return derive.KeyLength, nil
}

func parseAll(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err != nil || len(rest) > 0 {
		return errors.New("not well formed")
	}
	return nil
}

func (l lock) key(password secret.Bytes) ([]byte, error) {
	if l.scrypt != nil {
		return l.scrypt.key(password.Reveal(), l.salt, l.keySize)
	}
	return pbkdf2.Key(l.digest, string(password.Reveal()), l.salt, l.iterations, l.keySize) // a string: nothing can wipe it
}

func (l lock) cipher(password secret.Bytes, mode func(cipher.Block, []byte) cipher.BlockMode) (cipher.BlockMode, error) {
	key, err := l.key(password)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return mode(block, l.iv), nil
}

// open decrypts and takes the padding off (RFC 8018 section 6.2.2).
func (l lock) open(password secret.Bytes) ([]byte, error) {
	mode, err := l.cipher(password, cipher.NewCBCDecrypter)
	if err != nil {
		return nil, err
	}
	plain := bytes.Clone(l.data)
	mode.CryptBlocks(plain, plain)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.Equal(plain[len(plain)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		clear(plain)
		return nil, ErrPassword
	}
	return plain[:len(plain)-pad], nil
}

func (l lock) marshal(data []byte) ([]byte, error) {
	null := asn1.RawValue{Tag: asn1.TagNull}
	var err error
	raw := func(v any) asn1.RawValue {
		b, merr := asn1.Marshal(v)
		err = errors.Join(err, merr)
		return asn1.RawValue{FullBytes: b}
	}
	derive := raw(kdf{Salt: l.salt, Iterations: l.iterations, PRF: pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: null}})
	scheme := raw(pbes2{
		KDF:    pkix.AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: derive},
		Cipher: pkix.AlgorithmIdentifier{Algorithm: oidAES256, Parameters: raw(l.iv)},
	})
	der := raw(lockedKey{Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidPBES2, Parameters: scheme}, Data: data})
	return der.FullBytes, err
}
