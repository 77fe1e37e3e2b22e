package jwe

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// A guest of protocol 0.1 opens the message as it was written then: nothing of
// the package takes part (kbs-protocol 3.7).
func TestSealV01(t *testing.T) {
	key := generate(t, KeyRSA)
	jwk := key.JWK()
	jwk.Alg = AlgRSA15
	want := []byte("for an old guest")
	m, err := UnsafeSealV01(nil, jwk, want)
	if err != nil {
		t.Fatal(err)
	}
	if m.Protected != `{"alg":"RSA1_5","enc":"A256GCM"}` || m.Tag != "" {
		t.Fatalf("%+v", m)
	}
	wrapped, err1 := decode(m.EncryptedKey, 256)
	iv, err2 := decode(m.IV, 12)
	sealed, err3 := decode(m.Ciphertext, 1000)
	if err1 != nil || err2 != nil || err3 != nil || len(sealed) != len(want)+16 {
		t.Fatalf("%v, %v, %v: %d bytes", err1, err2, err3, len(sealed))
	}
	//nolint:staticcheck // what the old guest does
	cek, err := rsa.DecryptPKCS1v15(rand.Reader, key.half.(rsaPrivate).key, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(cek)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := gcm.Open(nil, iv, sealed, nil); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := key.Open(m); err == nil {
		t.Error("our own client opens it")
	}
}

func TestSealV01RefusesKeys(t *testing.T) {
	jwk := generate(t, KeyRSA).JWK()
	for name, k := range map[string]api.JWK{
		"OAEP":   jwk,
		"EC":     generate(t, KeyP256).JWK(),
		"small":  func() api.JWK { k := rsaOf(t, 1024); k.Alg = AlgRSA15; return k }(),
		"e of 3": {Kty: "RSA", Alg: AlgRSA15, N: jwk.N, E: "Aw"},
	} {
		if _, err := UnsafeSealV01(nil, k, []byte("x")); err == nil || UnsafeCheckV01(k) == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	jwk.Alg = AlgRSA15
	if err := UnsafeCheckV01(jwk); err != nil {
		t.Error(err)
	}
	if Check(jwk) == nil {
		t.Error("RSA1_5 outside protocol 0.1")
	}
	if _, err := UnsafeSealV01(nil, jwk, make([]byte, MaxPlaintext+1)); err == nil {
		t.Error("sealed too long a secret")
	}
	for _, n := range []int{0, 31, 32, 43} {
		if _, err := UnsafeSealV01(bytes.NewReader(counting(1, n)), jwk, []byte("x")); err == nil {
			t.Errorf("sealed with %d random bytes", n)
		}
	}
}
