package p384

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"math/big"
	"testing"

	"filippo.io/nistec"
)

func generate(t testing.TB) (*ecdsa.PrivateKey, *Key) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return private, key
}

// same checks that the verdict is that of crypto/ecdsa, and returns it.
func same(t *testing.T, key *Key, digest [48]byte, r, s *big.Int) bool {
	t.Helper()
	want := ecdsa.Verify(key.public, digest[:], r, s)
	if got := key.Verify(digest, r, s); got != want {
		t.Fatalf("got %v, crypto/ecdsa says %v\nkey %x %x\ndigest %x\nr %x\ns %x", got, want, key.public.X, key.public.Y, digest, r, s) //nolint:staticcheck // for a person to look at
	}
	return want
}

func TestVerdictsOfTheLibrary(t *testing.T) {
	for range 20 {
		private, key := generate(t)
		for i := range 10 {
			digest := sha512.Sum384([]byte{byte(i)})
			r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
			if err != nil {
				t.Fatal(err)
			}
			if !same(t, key, digest, r, s) {
				t.Fatal("a good signature is refused")
			}
			if same(t, key, sha512.Sum384([]byte("another")), r, s) || same(t, key, digest, s, r) {
				t.Fatal("a bad signature is accepted")
			}
			flipped := new(big.Int).SetBit(r, i*38, r.Bit(i*38)^1)
			if same(t, key, digest, flipped, s) {
				t.Fatal("a bad signature is accepted")
			}
			// The other signature that any verifier of plain ECDSA accepts.
			if !same(t, key, digest, r, new(big.Int).Sub(key.public.Params().N, s)) {
				t.Fatal("the mirrored signature is refused")
			}
		}
	}
}

// Numbers at the borders of the ranges, for digests that make the scalars zero
// or make the two halves of the sum cancel out.
func TestBorders(t *testing.T) {
	private, key := generate(t)
	p := private.Params()
	border := []*big.Int{
		big.NewInt(-1), big.NewInt(0), big.NewInt(1), big.NewInt(2), p.N, p.P,
		new(big.Int).Sub(p.N, big.NewInt(1)), new(big.Int).Add(p.N, big.NewInt(1)),
		new(big.Int).Rsh(p.N, 1), new(big.Int).Lsh(big.NewInt(1), 384), new(big.Int).Sub(p.P, p.N),
	}
	var zero, full [48]byte
	for i := range full {
		full[i] = 0xff
	}
	var order [48]byte
	p.N.FillBytes(order[:])
	for _, digest := range [][48]byte{zero, full, order, sha512.Sum384(nil)} {
		for _, r := range border {
			for _, s := range border {
				same(t, key, digest, r, s)
			}
		}
	}
	// u1*G + u2*Q is infinity if the digest is -r*d.
	r := big.NewInt(12345)
	e := new(big.Int).Mul(r, private.D) //nolint:staticcheck // the one way to get at the number
	e.Mod(e.Neg(e), p.N)
	var digest [48]byte
	e.FillBytes(digest[:])
	for _, s := range border {
		if same(t, key, digest, r, s) {
			t.Fatal("infinity is accepted")
		}
	}
}

// The key of the base point and its mirror make both combs meet in the same
// points, so that sums double and cancel.
func TestKeysNearTheBase(t *testing.T) {
	p := elliptic.P384().Params()
	for _, d := range []*big.Int{big.NewInt(1), big.NewInt(2), new(big.Int).Sub(p.N, big.NewInt(1)), new(big.Int).Lsh(big.NewInt(1), columns)} {
		private, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), d.FillBytes(make([]byte, 48)))
		if err != nil {
			t.Fatal(err)
		}
		key, err := NewKey(&private.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			digest := sha512.Sum384([]byte{byte(i)})
			r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
			if err != nil {
				t.Fatal(err)
			}
			if !same(t, key, digest, r, s) {
				t.Fatal("a good signature is refused")
			}
			same(t, key, sha512.Sum384([]byte("another")), r, s)
		}
	}
}

// Each entry of the table is what its definition says.
func TestComb(t *testing.T) {
	_, key := generate(t)
	point, err := key.public.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	q, err := nistec.NewP384Point().SetBytes(point)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < 1<<rows; i++ {
		scalar := new(big.Int)
		for j := range rows {
			scalar.SetBit(scalar, columns*j, uint(i>>j&1))
		}
		want, err := nistec.NewP384Point().ScalarMult(q, scalar.FillBytes(make([]byte, 48)))
		if err != nil {
			t.Fatal(err)
		}
		if string(want.Bytes()) != string(key.comb[i].Bytes()) {
			t.Fatalf("entry %d is wrong", i)
		}
	}
}

func TestOtherCurves(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewKey(&private.PublicKey); err == nil {
		t.Fatal("a key on P-256 is accepted")
	}
}

// FuzzVerify never disagrees with crypto/ecdsa, whatever the numbers are.
func FuzzVerify(f *testing.F) {
	private, key := func() (*ecdsa.PrivateKey, *Key) { return generate(f) }()
	f.Add(make([]byte, 48), make([]byte, 48), make([]byte, 48), false)
	f.Add([]byte("digest"), []byte{1}, []byte{1}, true)
	f.Fuzz(func(t *testing.T, digest, r, s []byte, good bool) {
		if len(r) > 60 || len(s) > 60 {
			return
		}
		var d [48]byte
		copy(d[:], digest)
		a, b := new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)
		if good { // what the fuzzer would never find: numbers that nearly fit
			x, y, err := ecdsa.Sign(rand.Reader, private, d[:])
			if err != nil {
				t.Fatal(err)
			}
			a.Xor(a, x)
			b.Xor(b, y)
		}
		same(t, key, d, a, b)
	})
}

func BenchmarkVerify(b *testing.B) {
	private, key := generate(b)
	digest := sha512.Sum384([]byte("report"))
	r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	b.Run("table", func(b *testing.B) {
		for b.Loop() {
			key.Verify(digest, r, s)
		}
	})
	b.Run("library", func(b *testing.B) {
		for b.Loop() {
			ecdsa.Verify(&private.PublicKey, digest[:], r, s)
		}
	})
	b.Run("table of a key", func(b *testing.B) {
		for b.Loop() {
			if _, err := NewKey(&private.PublicKey); err != nil {
				b.Fatal(err)
			}
		}
	})
}
