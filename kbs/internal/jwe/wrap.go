package jwe

import (
	"crypto/aes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// concatKDF derives a key of at most 256 bits from the shared secret z, with
// SHA-256 and empty private info (RFC 7518, section 4.6.2).
func concatKDF(z []byte, algorithm string, apu, apv []byte, bits uint32) []byte {
	h := sha256.New()
	field := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	h.Write([]byte{0, 0, 0, 1}) // round 1 gives all 256 bits
	h.Write(z)
	field([]byte(algorithm))
	field(apu)
	field(apv)
	h.Write(binary.BigEndian.AppendUint32(nil, bits))
	return h.Sum(nil)[:bits/8]
}

// wrapIV is the initial value of RFC 3394, section 2.2.3.1.
var wrapIV = [8]byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}

// wrapKey wraps key under kek (RFC 3394, section 2.2.1). The key must be a
// multiple of 8 bytes and at least 16.
func wrapKey(kek, key []byte) ([]byte, error) {
	if len(key)%8 != 0 || len(key) < 16 {
		return nil, errors.New("jwe: key to wrap has an odd length")
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	n := len(key) / 8
	out := make([]byte, len(key)+8)
	copy(out[8:], key)
	var b [16]byte
	copy(b[:8], wrapIV[:])
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[8:], out[8*i:8*i+8])
			block.Encrypt(b[:], b[:])
			t := binary.BigEndian.Uint64(b[:8]) ^ uint64(n*j+i)
			binary.BigEndian.PutUint64(b[:8], t)
			copy(out[8*i:], b[8:])
		}
	}
	copy(out[:8], b[:8])
	return out, nil
}

// unwrapKey reverses wrapKey (RFC 3394, section 2.2.2). It returns [ErrOpen]
// if the integrity check fails.
func unwrapKey(kek, wrapped []byte) ([]byte, error) {
	if len(wrapped)%8 != 0 || len(wrapped) < 24 {
		return nil, ErrOpen
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	n := len(wrapped)/8 - 1
	out := make([]byte, len(wrapped)-8)
	copy(out, wrapped[8:])
	var b [16]byte
	copy(b[:8], wrapped[:8])
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			t := binary.BigEndian.Uint64(b[:8]) ^ uint64(n*j+i)
			binary.BigEndian.PutUint64(b[:8], t)
			copy(b[8:], out[8*(i-1):8*i])
			block.Decrypt(b[:], b[:])
			copy(out[8*(i-1):], b[8:])
		}
	}
	if subtle.ConstantTimeCompare(b[:8], wrapIV[:]) != 1 {
		clear(out)
		return nil, ErrOpen
	}
	return out, nil
}
