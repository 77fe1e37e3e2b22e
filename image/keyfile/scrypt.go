package keyfile

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/scrypt"
)

// What scrypt may cost (RFC 7914 section 2): it takes 128*r*(N+p) bytes of memory and
// passes over them p times. OpenSSL asks for 16 MiB, cosign for 64 MiB; a file
// of somebody else's must not be able to ask for all that there is.
const (
	maxScryptMemory = 256 << 20 // bytes
	maxScryptWork   = 1 << 30   // bytes of memory, times passes
)

// scryptCost are the parameters of scrypt.
type scryptCost struct{ n, r, p int }

func (c scryptCost) check() error {
	// Each is bounded before they are multiplied.
	if c.n < 2 || c.n > maxScryptMemory/128 || c.n&(c.n-1) != 0 || c.r < 1 || c.r > maxScryptMemory/128 || c.p < 1 || c.p > maxScryptWork {
		return errors.New("the parameters of scrypt are not possible")
	}
	memory := 128 * int64(c.r) * (int64(c.n) + int64(c.p)) // the passes' own blocks lie there, too
	if memory > maxScryptMemory || memory > maxScryptWork/int64(c.p) {
		return fmt.Errorf("scrypt with N=%d, r=%d, p=%d costs more than is allowed", c.n, c.r, c.p)
	}
	return nil
}

func (c scryptCost) key(password, salt []byte, size int) ([]byte, error) {
	return scrypt.Key(password, salt, c.n, c.r, c.p, size)
}
