package eventlog

import (
	"crypto"
	_ "crypto/sha1" // the oldest bank, which real logs still carry
	"crypto/sha256"
	_ "crypto/sha512"
	"fmt"
)

// Algorithm is a TPM_ALG_ID of a digest (TCG Algorithm Registry).
type Algorithm uint16

// The algorithms of banks that exist in the field. SM3 is read and written but
// cannot be computed here.
const (
	SHA1   Algorithm = 0x0004
	SHA256 Algorithm = 0x000b
	SHA384 Algorithm = 0x000c
	SHA512 Algorithm = 0x000d
	SM3    Algorithm = 0x0012
)

// Size returns the length of a digest in bytes, 0 for an unknown algorithm.
func (a Algorithm) Size() int {
	switch a {
	case SHA1:
		return 20
	case SHA256, SM3:
		return 32
	case SHA384:
		return 48
	case SHA512:
		return 64
	}
	return 0
}

// Hash returns the hash function, if it is one that can be computed.
func (a Algorithm) Hash() (crypto.Hash, bool) {
	switch a {
	case SHA1:
		return crypto.SHA1, true
	case SHA256:
		return crypto.SHA256, true
	case SHA384:
		return crypto.SHA384, true
	case SHA512:
		return crypto.SHA512, true
	case SM3:
	}
	return 0, false
}

// String returns the name that claims use, for example "SHA-384".
func (a Algorithm) String() string {
	switch a {
	case SHA1:
		return "SHA-1"
	case SHA256:
		return "SHA-256"
	case SHA384:
		return "SHA-384"
	case SHA512:
		return "SHA-512"
	case SM3:
		return "SM3"
	}
	return fmt.Sprintf("algorithm 0x%04x", uint16(a))
}

// small is room for all registers of a TPM, whose digest every quote has.
const small = 24 * sha256.Size

// sumSmall is the SHA-256 of few bytes, without a hash of its own in memory.
func sumSmall(parts [][]byte) ([]byte, bool) {
	var buf [small]byte
	all := buf[:0]
	for _, p := range parts {
		if len(p) > small-len(all) {
			return nil, false
		}
		all = append(all, p...)
	}
	sum := sha256.Sum256(all)
	return sum[:], true
}

// Sum returns the digest of the concatenation of parts, nil if the algorithm
// cannot be computed.
func (a Algorithm) Sum(parts ...[]byte) []byte {
	h, ok := a.Hash()
	if !ok {
		return nil
	}
	if a == SHA256 {
		if sum, ok := sumSmall(parts); ok {
			return sum
		}
	}
	w := h.New()
	for _, p := range parts {
		w.Write(p)
	}
	return w.Sum(nil)
}
