package jwe

import (
	"crypto/sha3"
	"encoding/binary"
)

const kmac256Rate = 136 // bytes

// kmac256 is KMAC256 without customization (NIST SP 800-185, section 4.3);
// size is in bytes.
func kmac256(key, data []byte, size int) []byte {
	h := sha3.NewCSHAKE256([]byte("KMAC"), nil)
	h.Write(bytepad(encodeString(key), kmac256Rate))
	h.Write(data)
	h.Write(rightEncode(uint64(size) * 8))
	out := make([]byte, size)
	_, _ = h.Read(out) // never fails
	return out
}

// minimal is a number in as few bytes as it needs, at least one.
func minimal(n uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, n)
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

func leftEncode(n uint64) []byte {
	b := minimal(n)
	return append([]byte{byte(len(b))}, b...)
}

func rightEncode(n uint64) []byte {
	b := minimal(n)
	return append(b, byte(len(b)))
}

func encodeString(s []byte) []byte { return append(leftEncode(uint64(len(s))*8), s...) }

func bytepad(s []byte, width int) []byte {
	b := append(leftEncode(uint64(width)), s...)
	for len(b)%width != 0 {
		b = append(b, 0)
	}
	return b
}
