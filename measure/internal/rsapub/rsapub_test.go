package rsapub

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"math/big"
	"sync"
	"testing"
)

var keys = sync.OnceValue(func() []*rsa.PrivateKey {
	var all []*rsa.PrivateKey
	for _, bits := range []int{2048, 3072} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		all = append(all, k)
	}
	return all
})

var hashes = []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}

func sign(t testing.TB, k *rsa.PrivateKey, h crypto.Hash, message string) (digest, sig []byte) {
	t.Helper()
	w := h.New()
	w.Write([]byte(message))
	digest = w.Sum(nil)
	sig, err := rsa.SignPKCS1v15(rand.Reader, k, h, digest)
	if err != nil {
		t.Fatal(err)
	}
	return digest, sig
}

func prepared(t testing.TB, k *rsa.PrivateKey) *Key {
	t.Helper()
	p, err := New(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestVerify(t *testing.T) {
	for _, k := range keys() {
		p := prepared(t, k)
		for _, h := range hashes {
			digest, sig := sign(t, k, h, "a message")
			for range 2 { // the key is as good as before
				if err := p.VerifyPKCS1v15(h, digest, sig); err != nil {
					t.Errorf("%d bits, %v: %v", k.N.BitLen(), h, err)
				}
			}
			for name, bad := range map[string][]byte{
				"none": nil, "short": sig[1:], "long": append([]byte{0}, sig...), "all ones": bytesOf(0xff, len(sig)), "zero": bytesOf(0, len(sig)),
				"plus the modulus": new(big.Int).Add(new(big.Int).SetBytes(sig), k.N).Bytes(),
			} {
				if err := p.VerifyPKCS1v15(h, digest, bad); err == nil {
					t.Errorf("%d bits, %v: a signature that is %s holds", k.N.BitLen(), h, name)
				}
			}
			for i := range sig {
				sig[i] ^= 1
				if p.VerifyPKCS1v15(h, digest, sig) == nil {
					t.Fatalf("with byte %d changed the signature holds", i)
				}
				sig[i] ^= 1
			}
			digest[0] ^= 1
			if p.VerifyPKCS1v15(h, digest, sig) == nil {
				t.Error("a signature over another digest holds")
			}
			if p.VerifyPKCS1v15(h, digest[1:], sig) == nil || p.VerifyPKCS1v15(crypto.SHA1, digest[:20], sig) == nil {
				t.Error("a digest of the wrong length, or of SHA-1, holds")
			}
		}
	}
}

func bytesOf(b byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}

// A message that is padded in another way than the one way was the standard
// library's business to refuse, and is ours here: every bit of it counts.
func TestOnlyOneEncodingHolds(t *testing.T) {
	k := keys()[0]
	p := prepared(t, k)
	digest, _ := sign(t, k, crypto.SHA256, "a message")
	good := encoded(k.Size(), digestInfo[crypto.SHA256], digest)
	for i := range good {
		for _, flip := range []byte{1, 0x80, 0xff} {
			em := append([]byte(nil), good...)
			em[i] ^= flip
			s := new(big.Int).Exp(new(big.Int).SetBytes(em), k.D, k.N)
			sig := s.FillBytes(make([]byte, k.Size()))
			ours, theirs := p.VerifyPKCS1v15(crypto.SHA256, digest, sig), rsa.VerifyPKCS1v15(&k.PublicKey, crypto.SHA256, digest, sig)
			if ours == nil || theirs == nil {
				t.Fatalf("byte %d changed by %#x: %v, the standard library says %v", i, flip, ours, theirs)
			}
		}
	}
}

func TestKeysThatAreNotPrepared(t *testing.T) {
	n := keys()[0].N
	for name, k := range map[string]*rsa.PublicKey{
		"none": nil, "no modulus": {E: 3}, "even modulus": {N: new(big.Int).Sub(n, big.NewInt(1)), E: 3}, "small": {N: new(big.Int).Rsh(n, 1024), E: 3},
		"exponent 1": {N: n, E: 1}, "even exponent": {N: n, E: 4}, "exponent 0": {N: n}, "large": {N: new(big.Int).Lsh(n, 2056), E: 3},
	} {
		if _, err := New(k); err == nil {
			t.Errorf("a key that is %s is prepared", name)
		}
	}
}

// Both say the same of every signature.
func FuzzAgree(f *testing.F) {
	k := keys()[0]
	p := prepared(f, k)
	digest, sig := sign(f, k, crypto.SHA256, "a message")
	f.Add(0, byte(0), []byte(nil))
	f.Add(200, byte(1), []byte(nil))
	f.Add(0, byte(0), sig[:255])
	f.Fuzz(func(t *testing.T, at int, flip byte, other []byte) {
		s := append([]byte(nil), sig...)
		if len(other) > 0 {
			s = other
		}
		if at >= 0 && at < len(s) {
			s[at] ^= flip
		}
		ours := p.VerifyPKCS1v15(crypto.SHA256, digest, s)
		theirs := rsa.VerifyPKCS1v15(&k.PublicKey, crypto.SHA256, digest, s)
		if (ours == nil) != (theirs == nil) {
			t.Errorf("ours says %v, the standard library %v of %x", ours, theirs, s)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	k := keys()[0]
	p := prepared(b, k)
	digest, sig := sign(b, k, crypto.SHA256, "a message")
	b.Run("prepared", func(b *testing.B) {
		for b.Loop() {
			if err := p.VerifyPKCS1v15(crypto.SHA256, digest, sig); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("standard", func(b *testing.B) {
		for b.Loop() {
			if err := rsa.VerifyPKCS1v15(&k.PublicKey, crypto.SHA256, digest, sig); err != nil {
				b.Fatal(err)
			}
		}
	})
}
