package jwe

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// An independent implementation must open what Seal makes, and Open must take
// what it makes.
func TestAgainstJOSE(t *testing.T) {
	for _, alg := range []string{KeyP256, KeyP384, KeyP521, KeyRSA} { // no KEM in go-jose
		t.Run(alg, func(t *testing.T) {
			key := generate(t, alg)
			want := secret.Random(1000)

			raw, err := json.Marshal(seal(t, key.JWK(), want.Reveal()))
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := jose.ParseEncryptedJSON(string(raw), []jose.KeyAlgorithm{jose.KeyAlgorithm(key.alg)}, []jose.ContentEncryption{jose.A256GCM})
			if err != nil {
				t.Fatal(err)
			}
			got, err := theirs.Decrypt(standardKey(t, key))
			if err != nil || !bytes.Equal(got, want.Reveal()) {
				t.Fatalf("go-jose opens our message: %v", err)
			}

			public, err := json.Marshal(key.JWK())
			if err != nil {
				t.Fatal(err)
			}
			var jwk jose.JSONWebKey
			if err := jwk.UnmarshalJSON(public); err != nil {
				t.Fatal(err)
			}
			enc, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.KeyAlgorithm(key.alg), Key: jwk.Key}, nil)
			if err != nil {
				t.Fatal(err)
			}
			obj, err := enc.Encrypt(want.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			var m api.JWE
			if err := json.Unmarshal([]byte(obj.FullSerialize()), &m); err != nil {
				t.Fatal(err)
			}
			plain, err := key.Open(m)
			if err != nil || !plain.Equal(want) {
				t.Fatalf("we open go-jose's message: %v", err)
			}
		})
	}
}

// standardKey goes through the PEM, as a workload that was handed the key does.
func standardKey(t *testing.T, k *PrivateKey) any {
	t.Helper()
	text, err := k.PEM()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text.Reveal())
	if block == nil {
		t.Fatal("no PEM")
	}
	if block.Type == "RSA PRIVATE KEY" {
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
