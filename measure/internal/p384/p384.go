// Package p384 verifies many ECDSA signatures of one key on P-384, at less than
// half the price of one at a time.
//
// Verifying an attestation report is the most expensive thing a broker does,
// and a chip signs every report with the same key. What crypto/ecdsa does anew
// for each signature, doubling the key's point 384 times, is done here once for
// the key: a table of sums of its multiples, as Lim and Lee describe it (More
// flexible exponentiation with precomputation, CRYPTO '94). Signatures and keys
// are public, so nothing here has to take the same time for all of them.
// Nothing here can sign.
//
// The points' arithmetic is that of filippo.io/nistec, whose addition has no
// exceptions: no choice of signature leads to a case that it gets wrong.
package p384

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"errors"
	"fmt"
	"math/big"
	"sync"

	"filippo.io/nistec"
)

// A scalar of 384 bits is cut into rows of the comb, each as long as there are
// columns.
const (
	rows    = 6
	columns = 384 / rows
)

// comb holds for each choice of rows the sum of their points: entry i is the
// sum of 2^(columns*j) times the point over the bits j of i. Entry 0 is not
// used. It takes 9 KiB.
type comb [1 << rows]*nistec.P384Point

func newComb(p *nistec.P384Point) *comb {
	var c comb
	for j := range rows {
		if j > 0 {
			for range columns {
				p.Double(p)
			}
		}
		c[1<<j] = nistec.NewP384Point().Set(p)
		for i := 1; i < 1<<j; i++ {
			c[1<<j|i] = nistec.NewP384Point().Add(c[1<<j], c[i])
		}
	}
	return &c
}

// choice returns the bits of a scalar in one column.
func choice(scalar *big.Int, column int) (i uint) {
	for j := range rows {
		i |= scalar.Bit(columns*j+column) << j
	}
	return i
}

// generator is the comb of the curve's base point.
var generator = sync.OnceValue(func() *comb { return newComb(nistec.NewP384Point().SetGenerator()) })

// Key is a public key that expects to verify many signatures. It is safe for
// concurrent use.
type Key struct {
	public *ecdsa.PublicKey
	comb   *comb // nil: crypto/ecdsa verifies
}

// NewKey makes the table of a key, which costs about what one signature does.
// It refuses keys that are not points of P-384. Where the process must use
// validated cryptography only (FIPS 140), crypto/ecdsa does all the work.
func NewKey(public *ecdsa.PublicKey) (*Key, error) {
	if public.Curve != elliptic.P384() {
		return nil, errors.New("p384: the key is on another curve")
	}
	point, err := public.Bytes()
	if err != nil {
		return nil, fmt.Errorf("p384: %w", err)
	}
	if fips140.Enabled() {
		return &Key{public: public}, nil
	}
	p, err := nistec.NewP384Point().SetBytes(point)
	if err != nil {
		return nil, fmt.Errorf("p384: %w", err)
	}
	return &Key{public: public, comb: newComb(p)}, nil
}

// Verify reports whether r and s are a signature over a SHA-384 digest (SEC 1
// version 2.0, section 4.1.4).
func (k *Key) Verify(digest [48]byte, r, s *big.Int) bool {
	if k.comb == nil {
		return ecdsa.Verify(k.public, digest[:], r, s)
	}
	n := k.public.Params().N
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return false
	}
	w := new(big.Int).ModInverse(s, n) // n is prime
	u1 := new(big.Int).SetBytes(digest[:])
	u1.Mod(u1.Mul(u1, w), n)
	u2 := w.Mod(w.Mul(r, w), n)
	x, err := sum(u1, generator(), u2, k.comb).BytesX()
	if err != nil {
		return false // the point at infinity
	}
	v := new(big.Int).SetBytes(x)
	return v.Mod(v, n).Cmp(r) == 0
}

// sum is u1 times the point of c1 plus u2 times the point of c2.
func sum(u1 *big.Int, c1 *comb, u2 *big.Int, c2 *comb) *nistec.P384Point {
	out := nistec.NewP384Point()
	for column := columns - 1; column >= 0; column-- {
		out.Double(out)
		if i := choice(u1, column); i != 0 {
			out.Add(out, c1[i])
		}
		if i := choice(u2, column); i != 0 {
			out.Add(out, c2[i])
		}
	}
	return out
}
