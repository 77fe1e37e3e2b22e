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
	iterations int
	digest     func() hash.Hash
	keySize    int
	iv         []byte
	data       []byte
}

// parseLock reads an EncryptedPrivateKeyInfo with PBES2, PBKDF2 and AES-CBC,
// which is what openssl writes unless it is told otherwise.
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
	if !scheme.KDF.Algorithm.Equal(oidPBKDF2) {
		return l, fmt.Errorf("key derivation %s is not supported: PBKDF2 is (openssl pkcs8 -topk8 without -scrypt)", scheme.KDF.Algorithm)
	}
	var derive kdf
	if err := parseAll(scheme.KDF.Parameters.FullBytes, &derive); err != nil {
		return l, err
	}
	if derive.PRF.Algorithm == nil {
		derive.PRF.Algorithm = oidSHA1 // RFC 8018 A.2
	}
	if err := parseAll(scheme.Cipher.Parameters.FullBytes, &l.iv); err != nil {
		return l, err
	}
	l.salt, l.iterations, l.data = derive.Salt, derive.Iterations, outer.Data
	l.digest, l.keySize = digests[derive.PRF.Algorithm.String()], keySizes[scheme.Cipher.Algorithm.String()]
	switch {
	case l.digest == nil:
		return l, fmt.Errorf("digest %s is not supported", derive.PRF.Algorithm)
	case l.keySize == 0:
		return l, fmt.Errorf("cipher %s is not supported: AES in CBC mode is", scheme.Cipher.Algorithm)
	case derive.KeyLength != 0 && derive.KeyLength != l.keySize, len(l.iv) != aes.BlockSize:
		return l, errors.New("the lengths of key or IV are not the cipher's")
	case l.iterations < 1 || l.iterations > maxIterations:
		return l, fmt.Errorf("%d iterations: 1 to %d are possible", l.iterations, maxIterations)
	case len(l.salt) == 0 || len(l.salt) > maxSalt:
		return l, fmt.Errorf("a salt of %d bytes", len(l.salt))
	case len(l.data) == 0 || len(l.data)%aes.BlockSize != 0:
		return l, errors.New("the data is not whole blocks")
	}
	return l, nil
}

func parseAll(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err != nil || len(rest) > 0 {
		return errors.New("not well formed")
	}
	return nil
}

// cipher derives the key. The library wants the password as a string, which
// nothing can wipe.
func (l lock) cipher(password secret.Bytes, mode func(cipher.Block, []byte) cipher.BlockMode) (cipher.BlockMode, error) {
	key, err := pbkdf2.Key(l.digest, string(password.Reveal()), l.salt, l.iterations, l.keySize)
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
